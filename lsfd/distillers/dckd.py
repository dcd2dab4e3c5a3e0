"""DCKD-style: near the teacher's image, far from what the student used to make of worse inputs.

    L_contrastive = sum_j lambda_j * d(phi_j(S(x)), phi_j(sg T(x)))
                                   / (sum_{k=0..n} d(phi_j(S(x)), phi_j(H(x_k))) + 1e-7)
    L_output      = mean |S(x) - sg T(x)|

S(x), T(x), H(x_k): B x 3 x sh x sw; H: the history, a copy of the student that follows it in steps
and is never trained; x_0 = x, x_1..x_n: degraded versions of x, new ones for each batch; d: mean
absolute difference; phi and lambda: see :mod:`lsfd.distillers.perception`. Averaged over teachers.

Zhou et al., "Dynamic Contrastive Knowledge Distillation for Efficient Image Restoration" (AAAI
2025, arXiv 2412.08939). What the official code does and is done here: both terms and their weights
1 and 0.1; n = 4 beside the undegraded input; for super-resolution Gaussian noise with a deviation
of up to 30 of 255, grey for half of the images; H <- 0.1 H + 0.9 S every so many iterations.

What differs, and why it is called "-style": the official phi is the encoder of a pretrained VQGAN,
with the same five lambda as VGG here; a term of weight 0.001 compares entries of its codebook;
another compares with the teacher's output for flipped inputs. Neither the VQGAN nor those terms are
here. H follows the student itself, not the average of its weights, every ``refresh`` iterations
(official: 1,000 to 3,000 of 250,000).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.output import output_loss
from lsfd.distillers.perception import FeatureNetwork, PerceptualContrast
from lsfd.errors import LsfdError

SHARPEST = 0.1
"""Smallest deviation of the blur in pixels, at which it does nothing."""


def add_noise(images: Tensor, largest: float) -> Tensor:
    """Add Gaussian noise, grey for half of the images; the deviation differs between images.

    Args:
        images: B x 3 x h x w.
        largest: the largest deviation, in the units of the images.
    """
    one_each = (len(images), 1, 1, 1)
    deviation = largest * torch.rand(one_each, device=images.device)
    is_grey = torch.rand(one_each, device=images.device) < 0.5
    noise = torch.where(is_grey, torch.randn_like(images[:, :1]), torch.randn_like(images))
    return images + deviation * noise


def blurred(images: Tensor, largest: float) -> Tensor:
    """Blur by an isotropic Gaussian whose deviation differs between images.

    Args:
        images: B x C x h x w.
        largest: the largest deviation in pixels.
    """
    size, channels = images.shape[:2]
    radius = max(1, round(3 * largest))
    deviation = (largest * torch.rand(size, device=images.device)).clamp(SHARPEST)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    profile = (-0.5 * (offsets / deviation[:, None]).square()).softmax(1)
    profile = profile.repeat_interleave(channels, 0)[:, None, None]
    # Each channel of each image has its own filter: all are channels of one image.
    one = images.flatten(0, 1)[None]
    one = functional.pad(one, (radius, radius, radius, radius), mode="replicate")
    one = functional.conv2d(one, profile, groups=size * channels)
    return functional.conv2d(one, profile.mT, groups=size * channels)[0].view_as(images)


class History(nn.Module):
    """A copy of the student's weights that follows it in steps and is never trained.

    The student is unknown when a method is built. So the weights are no buffers, which would have
    to exist before a checkpoint is loaded, but the module's extra state.
    """

    def __init__(self, refresh: int, keep: float) -> None:
        """Start without weights: the first call of :meth:`follow` copies the student's.

        Args:
            refresh: iterations between two steps towards the student.
            keep: share of the old weights that is kept in each.
        """
        super().__init__()
        self.refresh = refresh
        self.keep = keep
        self.weights: dict[str, Tensor] = {}
        self.last_step = 0

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        """Take a step towards the student's weights, if it is time to."""
        now = {**dict(student.named_parameters()), **dict(student.named_buffers())}
        if not self.weights:
            self.weights = {name: value.clone() for name, value in now.items()}
        elif step - self.last_step >= self.refresh:
            self.weights = {name: self._nearer(name, value) for name, value in now.items()}
        else:
            return
        self.last_step = step

    def _nearer(self, name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value.clone()
        return value.lerp(self.weights[name].to(value.device), self.keep)

    @torch.no_grad()
    def forward(self, student: nn.Module, lq: Tensor) -> Tensor:
        """Return what the student with the history's weights makes of images."""
        self.weights = {name: value.to(lq.device) for name, value in self.weights.items()}
        training = student.training
        student.eval()
        try:
            return torch.func.functional_call(student, self.weights, (lq,))
        finally:
            student.train(training)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the weights and the iteration of the last step, for the checkpoint."""
        return {"weights": self.weights, "last_step": self.last_step}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_extra_state` returned."""
        self.weights, self.last_step = dict(state["weights"]), state["last_step"]


@register
class DCKD(Distiller):
    """Output distillation, and a contrast with the student's past on worse inputs (DCKD-style)."""

    default_weights: ClassVar = {"contrastive": 0.1, "output": 1.0}
    paper: ClassVar = "Zhou et al., arXiv 2412.08939"
    year: ClassVar = 2024

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        network: FeatureNetwork = "auto",
        vgg_weights: str | None = None,
        negatives: int = 4,
        noise: float = 30.0,
        blur: float = 0.0,
        refresh: int = 100,
        keep: float = 0.1,
    ) -> None:
        """Build the feature network and an empty history.

        Args:
            setting: taps and scale.
            weights: weights of the terms ``contrastive`` and ``output``.
            network: in whose features images are compared: ``vgg``; ``teacher``, at its taps;
                ``auto``: ``vgg`` where its weights are there, otherwise ``teacher``.
            vgg_weights: torchvision's file vgg19-dcbb9e9d.pth; null: the one in torch's folder of
                downloads.
            negatives: n, degraded versions of the input, beside the input itself.
            noise: largest deviation of the noise in levels of 0..255; 0: no noise.
            blur: largest deviation of the Gaussian blur in pixels; 0: no blur.
            refresh: iterations between two steps of the history towards the student.
            keep: share of the history's weights that is kept in such a step, 0..1.

        Raises:
            LsfdError: an option is out of its range, or VGG's weights are missing.
        """
        super().__init__(setting, weights)
        if negatives < 1:
            raise LsfdError(f"negatives: must be at least 1, not {negatives}")
        if noise < 0 or blur < 0 or noise + blur == 0:
            raise LsfdError(
                f"noise: noise and blur must be at least 0, and one above 0, not {noise} and {blur}"
            )
        if refresh < 1:
            raise LsfdError(f"refresh: must be at least 1, not {refresh}")
        if not 0 <= keep <= 1:
            raise LsfdError(f"keep: must be in 0..1, not {keep}")
        self.contrast = PerceptualContrast(setting, network, vgg_weights)
        self.history = History(refresh, keep)
        self.negatives = negatives
        self.noise = noise
        self.blur = blur

    @property
    def network(self) -> str:
        """What features are compared: ``vgg`` or ``teacher``."""
        return self.contrast.network

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"contrastive": ..., "output": ...}``."""
        student = batch.student_network.network
        self.history.follow(student, batch.step)
        worse = [self._degraded(batch.lq) for _ in range(self.negatives)]
        images = self.history(student, torch.cat([batch.lq, *worse])).float()
        contrastive = self.contrast(batch, images, lambda all_: all_.split(len(batch.lq)))
        return {"contrastive": contrastive, "output": output_loss(batch)}

    def _degraded(self, lq: Tensor) -> Tensor:
        if self.blur:
            lq = blurred(lq, self.blur)
        if self.noise:
            lq = add_noise(lq, self.noise / 255)
        return lq.clamp(0, 1)
