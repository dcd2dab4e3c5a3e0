"""ONE: the student grows branches while it trains; their gated ensemble teaches all of them.

Lan et al., "Knowledge Distillation by On-the-Fly Native Ensemble" (NeurIPS 2018, arXiv 1806.04606).

F: B x C x h x w, the feature behind the layers that all branches share. S_1 = S is the student;
S_2 ... S_m are networks like it, with random starts of their own, that go on from the student's F.

    g      = softmax(relu(bn(W p(F))))    W: C -> m; p: mean over all pixels, g: B x m,
                                          or the identity, g: B x m x h x w
    S_e    = sum_i g_i S_i                B x 3 x sh x sw
    L_branch       = sum_{i>1} mean |S_i - y|
    L_ensemble     = mean |S_e - y|
    L_distillation = w(t) sum_i mean |S_i - sg S_e|

w(t) = exp(-5 (1 - t / R)^2) for t < R, then 1; t: iterations done; R: ``rampup_iter``; sg:
stop-gradient. The loss of the student's own image, mean |S_1 - y|, is ``train.pixel_opt``. The gate
learns from L_ensemble alone. Branches and gate are left behind at the end: the student is branch 1,
a network like any other.

What the authors' code states (github.com/Lan1991Xu/ONE_NeurIPS2018): three branches; the low
layers shared; the gate's layers, with the shared feature as its input; cross entropy of every
branch and of the ensemble, one as strong as the other; the divergence to the ensemble, times the
square of the temperature; w(t) over the first 80 of 300 epochs.

What is our choice: images and L1 in place of class scores and divergences, so that there is no
temperature; L_distillation counts half, since with equal weights a pixel between its two targets is
pulled to neither (and since it then pulls about as hard as the pixel loss); the stem and two thirds
of the body shared, body tail and upsampling a branch's own; the gate of every pixel; a batch of one
image, which batch normalisation cannot work with, is normalised by what the images before it gave.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.errors import LsfdError, nearest

TRIAL_SIZE = 24
"""Side of the image on which the width of the shared feature is found."""


class Source(nn.Module):
    """Stands for a module of the shared layers: gives the student's feature, not one of its own."""

    feature: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature that was put here, whatever the input."""
        # A copy: what comes next may add to it in place.
        return x if self.feature is None else self.feature.clone()


class Branch(nn.Module):
    """A network without its shared layers, which goes on from another one's features."""

    def __init__(self, network: nn.Module, taps: Sequence[str], skipped: Sequence[str]) -> None:
        """Take the shared layers out of a network.

        Args:
            network: becomes part of the branch.
            taps: modules whose output is given to the branch.
            skipped: modules whose work the last tap contains.
        """
        super().__init__()
        self.network = network
        for name in skipped:
            _put(network, name, nn.Identity())
        self._sources = {name: Source() for name in taps}
        for name, source in self._sources.items():
            _put(network, name, source)

    def forward(self, lq: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Return the branch's image, B x 3 x sh x sw.

        Args:
            lq: B x 3 x h x w in 0..1.
            features: B x C x h x w for each tap.
        """
        try:
            for name, source in self._sources.items():
                source.feature = features[name]
            image: Tensor = self.network(lq)
        finally:
            for source in self._sources.values():
                source.feature = None
        return image


def _put(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


class Gate(nn.Module):
    """Says how much each branch counts, for each image or for each pixel."""

    def __init__(self, channels: int, branches: int, per: Literal["image", "pixel"]) -> None:
        super().__init__()
        self.scores = nn.Conv2d(channels, branches, 1)
        self.norm = nn.BatchNorm2d(branches)
        self.per = per

    def forward(self, feature: Tensor) -> Tensor:
        """Return shares of 0..1 that sum to 1 over the branches.

        Args:
            feature: B x C x h x w.

        Returns:
            B x m x 1 x 1 or B x m x h x w.
        """
        feature = feature.float()
        if self.per == "image":
            feature = feature.mean((2, 3), keepdim=True)
        return self._normalized(self.scores(feature).float()).relu().softmax(1)

    def _normalized(self, scores: Tensor) -> Tensor:
        if scores[:, 0].numel() > 1:
            normalized: Tensor = self.norm(scores)
            return normalized
        # One value has no spread: it follows the mean and the spread of those before it.
        mean, variance, momentum = self.norm.running_mean, self.norm.running_var, self.norm.momentum
        assert mean is not None and variance is not None and momentum is not None
        with torch.no_grad():
            mean.lerp_(scores.flatten(), momentum)
            variance.lerp_((scores.flatten() - mean).square(), momentum)
        weight, bias = self.norm.weight, self.norm.bias
        mean, variance = mean.clone(), variance.clone()  # The next image moves the buffers.
        return functional.batch_norm(scores, mean, variance, weight, bias, eps=self.norm.eps)


def ensemble(images: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Return the convex combination of images.

    Args:
        images: m of B x 3 x sh x sw.
        shares: B x m x 1 x 1, or B x m x h x w, which is enlarged.
    """
    if shares.shape[-2:] != (1, 1):
        shares = functional.interpolate(shares, size=images[0].shape[-2:], mode="bilinear")
    return (shares[:, :, None] * torch.stack(list(images), 1)).sum(1)


def rampup(done: int, length: int) -> float:
    """Return w(t): from exp(-5), after ``length`` iterations 1."""
    return math.exp(-5 * (1 - done / length) ** 2) if done < length else 1.0


def shared_layers(
    student: nn.Module, stem: str, body: str, share: float
) -> tuple[list[str], list[str]]:
    """Return the modules whose output branches need, and those that they need not run.

    Args:
        student: any network with a stem and a row of blocks.
        stem: path of its first layer.
        body: path of its row of blocks.
        share: of the blocks; rounded to a whole number of them.

    Raises:
        LsfdError: the student has no such modules.
    """
    modules = dict(student.named_modules())
    kind = type(student).__name__
    for option, name in (("stem", stem), ("body", body)):
        if not name or name not in modules:
            hint = nearest(name, [child for child, _ in student.named_children()])
            raise LsfdError(f"{option}: {kind} has no module '{name}'{hint}")
    row = modules[body]
    if not isinstance(row, (nn.Sequential, nn.ModuleList)):
        raise LsfdError(f"body: '{body}' of {kind} is no row of blocks but {type(row).__name__}")
    blocks = [f"{body}.{child}" for child, _ in row.named_children()]
    blocks = blocks[: round(share * len(blocks))]
    return [stem, *blocks[-1:]], blocks[:-1]


def feature_width(student: nn.Module, tap: str, option: str) -> int:
    """Return C of the feature that a module gives, found by one small forward of a copy.

    Raises:
        LsfdError: naming the option: the module gives no B x C x h x w on the input's grid.
    """
    network = copy.deepcopy(student).eval()
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, _args: object, output: object) -> None:
        shapes.append(tuple(output.shape) if isinstance(output, Tensor) else ())

    network.get_submodule(tap).register_forward_hook(note)
    image = torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE)
    with torch.no_grad():
        network(image)
    if not shapes or len(shapes[0]) != 4 or shapes[0][2:] != image.shape[2:]:
        raise LsfdError(
            f"{option}: '{tap}' of {type(student).__name__} gives no feature of the input's height "
            "and width, from which branches could go on"
        )
    return shapes[0][1]


@register
class ONE(Distiller):
    """Branches of the student's own, whose gated ensemble is the teacher."""

    default_weights: ClassVar = {"branch": 1.0, "ensemble": 1.0, "distillation": 0.5}
    paper: ClassVar = "Lan et al., arXiv 1806.04606"
    year: ClassVar = 2018
    needs_teacher: ClassVar = False
    uses_features: ClassVar = False

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        branches: int = 3,
        share: float = 2 / 3,
        stem: str = "conv_first",
        body: str = "body",
        gate: Literal["image", "pixel"] = "image",
        rampup_iter: int = 500,
    ) -> None:
        """Grow the branches.

        Args:
            setting: the student.
            weights: weights of the terms ``branch``, ``ensemble`` and ``distillation``.
            branches: how many there are, the student being the first.
            share: of the body's blocks that all branches share; 0: nothing but the stem.
            stem: the student's first layer.
            body: the student's row of blocks.
            gate: whether branches count alike in a whole image, or otherwise in each pixel.
            rampup_iter: iterations in which the distillation rises to its full weight.

        Raises:
            LsfdError: a number is out of its range, or the student has no such modules.
        """
        super().__init__(setting, weights)
        if branches < 2:
            raise LsfdError(
                f"branches: must be at least 2, the student and one more; not {branches}"
            )
        if not 0 <= share <= 1:
            raise LsfdError(f"share: must be at least 0 and at most 1, not {share}")
        if rampup_iter < 0:
            raise LsfdError(f"rampup_iter: must be at least 0, not {rampup_iter}")
        self.taps, skipped = shared_layers(setting.student, stem, body, share)
        option = "body" if len(self.taps) > 1 else "stem"
        width = feature_width(setting.student, self.taps[-1], option)
        self.branches = nn.ModuleList(
            Branch(setting.new_student(), self.taps, skipped) for _ in range(branches - 1)
        )
        self.gate = Gate(width, branches, gate)
        self.rampup_iter = rampup_iter

    def student_taps(self) -> Sequence[str]:
        """Return the stem and the last shared block."""
        return self.taps

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"branch": ..., "ensemble": ..., "distillation": ...}``."""
        features = batch.student_features
        own = [branch(batch.lq, features).float() for branch in self.branches]
        images = [batch.student, *own]
        merged = ensemble(images, self.gate(features[self.taps[-1]]))
        target = merged.detach()
        distances = torch.stack([functional.l1_loss(image, target) for image in images])
        return {
            "branch": torch.stack([functional.l1_loss(image, batch.gt) for image in own]).sum(),
            "ensemble": functional.l1_loss(merged, batch.gt),
            "distillation": rampup(batch.step - 1, self.rampup_iter) * distances.sum(),
        }
