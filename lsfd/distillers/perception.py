"""Images compared by a frozen feature network, phi; what contrastive distillation shares.

For features phi_j, j = 1..J, of an anchor image S, a positive T and negatives N_1..N_K:

    L = sum_j lambda_j * d(phi_j(S), phi_j(sg T)) / (sum_k d(phi_j(S), phi_j(sg N_k)) + 1e-7)

phi_j: B x C_j x h_j x w_j; d: mean absolute difference over the batch; sg: stop-gradient. The form,
the sum over negatives included, is that of the official code of CSD (Wang et al., arXiv 2105.11683)
and of DCKD (Zhou et al., arXiv 2412.08939).

phi is one of

- ``vgg``: VGG19, trained on ImageNet, after relu1_1, relu2_1, .. relu5_1 with lambda = 1/32, 1/16,
  1/8, 1/4, 1, on images in 0..255 without normalisation, all as in CSD's code. It needs
  torchvision's weights in a file, which is never downloaded here.
- ``teacher``: our choice where VGG's weights are not at hand, or not wanted. The frozen teacher
  reads a piece of the enlarged images, of the size of its usual input, as if it were
  low-resolution; phi_j are the features at its taps, lambda_j = 1/J. The place of the piece is
  drawn at random, once for all images and teachers of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Setting
from lsfd.errors import LsfdError
from lsfd.torch_files import read_torch_file

FeatureNetwork = Literal["auto", "vgg", "teacher"]

EPSILON = 1e-7

VGG_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG_LAYERS = (64, 64, "pool", 128, 128, "pool", *[256] * 4, "pool", *[512] * 4, "pool", 512)
VGG_LEVELS = (1, 6, 11, 20, 29)
"""Indices of relu1_1 .. relu5_1 in torchvision's ``vgg19().features``."""
VGG_LEVEL_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def contrastive_ratio(anchor: Tensor, positive: Tensor, negatives: Sequence[Tensor]) -> Tensor:
    """Return d(anchor, positive) / (sum over negatives of d(anchor, negative) + epsilon).

    Args:
        anchor: B x C x h x w.
        positive: B x C x h x w.
        negatives: each B x C x h x w, or 1 x C x h x w for one that all images share.
    """
    apart = [functional.l1_loss(anchor, negative.expand_as(anchor)) for negative in negatives]
    return functional.l1_loss(anchor, positive) / (torch.stack(apart).sum() + EPSILON)


def others(features: Tensor, count: int) -> list[Tensor]:
    """Return for each image of a batch ``count`` others, each list entry holding one for each.

    Args:
        features: B x ...
        count: less than B, so that no image meets itself.
    """
    return [features.roll(shift, 0) for shift in range(1, count + 1)]


class Vgg19(nn.Module):
    """VGG19 up to relu5_1, with the parameter names of torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for layer in VGG_LAYERS:
            if isinstance(layer, int):
                layers += [nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU()]
                channels = layer
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features at the five levels, for B x 3 x H x W in 0..1."""
        value, levels = 255 * images, []
        for index, layer in enumerate(self.features):
            value = layer(value)
            if index in VGG_LEVELS:
                levels.append(value)
        return levels


def load_vgg(path: Path) -> Vgg19:
    """Read torchvision's VGG19.

    Raises:
        LsfdError: the file cannot be read or holds something else.
    """
    with torch.device("meta"):  # Takes no random numbers for weights that are replaced at once.
        network = Vgg19()
    try:
        saved = read_torch_file(path)
        if not isinstance(saved, dict):
            raise TypeError(f"it holds {type(saved).__name__}")
        weights = {name: saved[name] for name in network.state_dict()}
        network.load_state_dict(weights, assign=True)
    except Exception as error:  # A damaged pickle fails in the parser in any way it likes.
        reason = " ".join(str(error).split())[:200]
        raise LsfdError(
            f"vgg_weights: {path} does not hold the weights of torchvision's vgg19 ({reason}); "
            f"download {VGG_URL}"
        ) from error
    return network.float().eval().requires_grad_(False)


class Perception(nn.Module):
    """The feature network phi. It has no parameters: phi is never trained.

    Attributes:
        network: what phi is: ``vgg`` or ``teacher``, also where ``auto`` was asked for.
    """

    def __init__(self, setting: Setting, network: FeatureNetwork, vgg_weights: str | None) -> None:
        """Find VGG's weights, where they are wanted.

        Args:
            setting: taps, for phi = ``teacher``.
            network: ``auto`` is ``vgg`` where its weights are there, otherwise ``teacher``.
            vgg_weights: file of torchvision's weights; None: the one in torch's folder of
                downloads.

        Raises:
            LsfdError: the weights are asked for but are not there, or are not VGG19's.
        """
        super().__init__()
        name = VGG_URL.rpartition("/")[2]
        path = Path(vgg_weights or Path(torch.hub.get_dir()) / "checkpoints" / name)
        if not path.is_file() and (network == "vgg" or vgg_weights):
            raise LsfdError(
                f"vgg_weights: there is no file {path}; download {VGG_URL} and put it there, or "
                "use network: teacher"
            )
        if network == "auto":
            network = "vgg" if path.is_file() else "teacher"
        self.network: Literal["vgg", "teacher"] = network
        self._taps = [tuple(dict.fromkeys(tap.teacher for tap in taps)) for taps in setting.taps]
        # The tuple keeps VGG out of parameters(), checkpoints and the student's optimiser.
        self._vgg = (load_vgg(path),) if network == "vgg" else ()

    def get_extra_state(self) -> str:
        """Return what phi is, for the checkpoint."""
        return self.network

    def set_extra_state(self, state: str) -> None:
        """Refuse to go on with another phi than the one that the run began with.

        Raises:
            LsfdError: ``auto`` found VGG's weights when the run began but not now, or only now.
        """
        if state != self.network:
            raise LsfdError(
                f"network: the run began with '{state}' and would go on with '{self.network}', "
                f"because VGG's weights are there at one time only; set network: {state}"
            )

    def window(self, batch: DistillationBatch) -> tuple[slice, slice]:
        """Return rows and columns of the images that phi looks at."""
        if self._vgg:
            return slice(None), slice(None)
        height, width = batch.lq.shape[2:]
        rows, columns = batch.student.shape[2:]
        top = int(torch.randint(rows - height + 1, ()))
        left = int(torch.randint(columns - width + 1, ()))
        return slice(top, top + height), slice(left, left + width)

    def features(self, images: Tensor, batch: DistillationBatch, teacher: int) -> list[Tensor]:
        """Return phi_1 .. phi_J of images, float32; those of one teacher, where phi is one.

        Args:
            images: N x 3 x H x W in 0..1, of the rows and columns of :meth:`window`.
            batch: gives the teachers.
            teacher: which of them.
        """
        if self._vgg:
            return [level.float() for level in self._vgg[0].to(images.device)(images)]
        _, features = batch.teacher_networks[teacher](images)
        return [features[tap].float() for tap in self._taps[teacher]]

    def level_weights(self, losses: Sequence[Tensor]) -> Tensor:
        """Return lambda_1 .. lambda_J for one loss of each level, on their device."""
        weights = VGG_LEVEL_WEIGHTS if self._vgg else [1 / len(losses)] * len(losses)
        return torch.tensor(weights, device=losses[0].device)


class PerceptualContrast(Perception):
    """The loss above, averaged over teachers."""

    def forward(
        self,
        batch: DistillationBatch,
        negatives: Tensor,
        arrange: Callable[[Tensor], Sequence[Tensor]],
    ) -> Tensor:
        """Return the contrastive loss of the student's output against each teacher's.

        Args:
            batch: gives anchors (the student's output) and positives (the teachers').
            negatives: M x 3 x sh x sw.
            arrange: makes of the negatives' features, M x C x h x w, the K negatives of
                :func:`contrastive_ratio`.
        """
        rows, columns = self.window(batch)
        student, size = batch.student[..., rows, columns], len(batch.student)
        losses = []
        for teacher, positives in enumerate(batch.teachers):
            anchors = self.features(student, batch, teacher)
            with torch.no_grad():
                images = torch.cat([positives, negatives])[..., rows, columns]
                fixed = self.features(images, batch, teacher)
            ratios = [
                contrastive_ratio(mine, theirs[:size], arrange(theirs[size:]))
                for mine, theirs in zip(anchors, fixed, strict=True)
            ]
            losses.append((torch.stack(ratios) * self.level_weights(ratios)).sum())
        return torch.stack(losses).mean()
