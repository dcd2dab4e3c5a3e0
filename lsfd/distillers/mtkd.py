"""MTKD: several teachers' images, merged into a better one, teach the student.

Jiang et al., "MTKD: Multi-Teacher Knowledge Distillation for Image Super-Resolution" (ECCV 2024,
arXiv 2404.09571).

Teachers' images T_n(x), n = 1..N, and student image S(x): B x 3 x sh x sw in 0..1; ground truth y.

    a, c      = g([T_1(x), ..., T_N(x)])   shares a: B x N x sh x sw, correction c: B x 3 x sh x sw
    A         = sum_n a_n T_n(x) + c                                the aggregate
    stage:      min_g mean |A - y|                                  "aggregate", the student rests
    L_distill = sum_k mean |H_k(S(x)) - H_k(sg A)| + mean |LL_K(S(x)) - LL_K(sg A)|,   k = 1..K

H_k: the three high bands of level k of the Haar wavelet transform, B x 3 x 3 x sh/2^k x sw/2^k;
LL_K: the low band of the last level. The transform is orthonormal, so a constant difference d
counts 2^K d in LL_K, and nothing elsewhere. After its stage g is frozen.

What the released code states (github.com/YuxuanJJ/MTKD): the teachers' images concatenated as the
aggregator's channels, pixel unshuffling in front of it, L1 to the ground truth, training before and
apart from the student's; the wavelet loss above with K = 4 by default and zeros appended to odd
sizes; the student's total L_distill + 0.1 L1(S(x), y). Summaries of the paper, which we could not
check, say K = 1, our default. Not copied: the code's low band is that of one sample, because the
index of the level is applied to the batch; and its student's option file has plain L1 in place of
the wavelet loss (``loss: l1`` here).

What is our choice: the paper's aggregator is a Swin transformer with a DCT that gives the image
itself and takes 500,000 iterations; g is a row of convolutions that gives, at each pixel, shares
(a softmax) and a correction, and starts with A as the mean of the teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Stage, register
from lsfd.errors import LsfdError

DIFFERENCES = 10.0
"""Factor that brings the differences between teachers, some hundredths, to the images' range."""


def haar(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return one level of the orthonormal Haar wavelet transform.

    Args:
        image: B x C x h x w; zeros are appended to an odd height or width.

    Returns:
        The low band, B x C x h/2 x w/2, and the high ones, B x C x 3 x h/2 x w/2: differences of
        columns, of rows, and of both.
    """
    image = functional.pad(image, (0, image.shape[3] % 2, 0, image.shape[2] % 2))
    upper_left, upper_right = image[:, :, ::2, ::2], image[:, :, ::2, 1::2]
    lower_left, lower_right = image[:, :, 1::2, ::2], image[:, :, 1::2, 1::2]
    upper, lower = upper_left + upper_right, lower_left + lower_right
    upper_step, lower_step = upper_left - upper_right, lower_left - lower_right
    high = [upper_step + lower_step, upper - lower, upper_step - lower_step]
    return (upper + lower) / 2, torch.stack(high, 2) / 2


def wavelet_loss(first: Tensor, second: Tensor, levels: int) -> Tensor:
    """Return the L1 distance of two images' wavelet bands, summed over levels.

    Args:
        first: B x C x h x w.
        second: B x C x h x w.
        levels: K, at least 1.
    """
    low = first - second  # The transform is linear: that of the difference is enough.
    loss = low.new_zeros(())
    for _ in range(levels):
        low, high = haar(low)
        loss = loss + high.abs().mean()
    return loss + low.abs().mean()


class Aggregator(nn.Module):
    """Convolutions on the low-resolution grid that blend the teachers' images and correct them."""

    def __init__(self, teachers: int, scale: int, width: int, depth: int) -> None:
        """Build the layers; the last one starts at zero, so that the blend starts as the mean.

        Args:
            teachers: N.
            scale: s; blocks of s x s pixels become channels, and back.
            width: channels between convolutions.
            depth: how many convolutions of this width.
        """
        super().__init__()
        self.teachers = teachers
        pixels = scale**2
        widths = [3 * (teachers + 1) * pixels] + [width] * depth
        layers: list[nn.Module] = [nn.PixelUnshuffle(scale)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        last = nn.Conv2d(width, (teachers + 3) * pixels, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(*layers, last, nn.PixelShuffle(scale))

    def forward(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return the aggregate of N images, float32, all B x 3 x sh x sw."""
        images = torch.stack(list(teachers), 1)
        mean = images.mean(1, keepdim=True)
        told = torch.cat([mean, DIFFERENCES * (images - mean)], 1).flatten(1, 2)
        shares, correction = self.layers(told).float().split([self.teachers, 3], 1)
        return (shares.softmax(1).unsqueeze(2) * images).sum(1) + correction


@register
class MTKD(Distiller):
    """Teachers' images are first merged into a better one; the student learns its wavelet bands."""

    default_weights: ClassVar = {"distill": 10.0}
    paper: ClassVar = "Jiang et al., arXiv 2404.09571"
    year: ClassVar = 2024
    uses_features: ClassVar = False

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        loss: Literal["wavelet", "l1"] = "wavelet",
        levels: int = 1,
        width: int = 64,
        depth: int = 2,
        aggregate_iter: int = 300,
        aggregate_lr: float = 1e-3,
    ) -> None:
        """Build the aggregator.

        Args:
            setting: scale and number of teachers.
            weights: weight of the term ``distill``; its default beside a reconstruction loss of
                weight 1 is the released code's ratio, and the best that was tried
                (options/weights_x4.yml).
            loss: ``wavelet`` as in the paper, or plain ``l1`` as in the released option file.
            levels: levels K of the wavelet transform.
            width: channels of the aggregator.
            depth: how many convolutions of this width the aggregator has.
            aggregate_iter: iterations in which the aggregator learns, before the student does.
            aggregate_lr: learning rate at their beginning.

        Raises:
            LsfdError: a number is too small.
        """
        super().__init__(setting, weights)
        for name, value in {"levels": levels, "width": width, "depth": depth}.items():
            if value < 1:
                raise LsfdError(f"{name}: must be at least 1, not {value}")
        if aggregate_iter < 0:
            raise LsfdError(f"aggregate_iter: must be at least 0, not {aggregate_iter}")
        self.aggregator = Aggregator(len(setting.taps), setting.scale, width, depth)
        self.loss = loss
        self.levels = levels
        self._stage = Stage("aggregate", aggregate_iter, runs_student=False, lr=aggregate_lr)

    def stages(self) -> Sequence[Stage]:
        """Return the aggregator's stage."""
        return (self._stage,)

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"l1": ...}``, the aggregate's distance to the ground truth."""
        return {"l1": functional.l1_loss(self.aggregator(batch.teachers), batch.gt)}

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"distill": ...}``."""
        with torch.no_grad():
            aggregate = self.aggregator(batch.teachers)
        if self.loss == "l1":
            return {"distill": functional.l1_loss(batch.student, aggregate)}
        return {"distill": wavelet_loss(batch.student, aggregate, self.levels)}
