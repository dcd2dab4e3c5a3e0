"""FACD-style: features contrasted with the teacher's features of other images, where it pays.

For each image i of the batch and each pair of taps l, with F_S: B x Cs x h x w, F_T: B x Ct x h x w
(no gradient), an adapter r_l: Cs -> Ct and the mean absolute difference d of two features:

    q[i,l] = d(r_l(F_S[i]), F_T[i]) / (mean_k d(r_l(F_S[i]), F_T[k]) + 1e-7)     k: K other images
    g[i]   = 1 where mean |T(x_i) - y_i| < mean |S(x_i) - y_i|, otherwise 0
    L_contrastive = mean_i (g[i] * sum_l q[i,l]),   L_output = mean |S(x) - sg T(x)|

Averaged over teachers, each with its own g. Moon et al., "Feature-Domain Adaptive Contrastive
Distillation for Efficient Single Image Super-Resolution" (IEEE Access 2023, arXiv 2211.15951).

What the abstract and the figure in the authors' repository state: the student's features at three
taps pass an adapter ("DR"); a distance to the teacher's feature of the same image is contrasted
with a distance to features of other images; the output imitates ground truth and teacher;
distillation depends on the condition of each training patch. No code was published.

What is our choice, because the formulae were not available to us: the L1 distance, the quotient,
negatives from the teacher, the adapter (a convolution), the condition g (the teacher is nearer to
the ground truth), that g holds for the features but not for the output, the weights.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.output import output_loss
from lsfd.distillers.perception import EPSILON, others
from lsfd.distillers.regressor import Regressors
from lsfd.errors import LsfdError


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean absolute difference of each image's values: B, for two B x C x H x W."""
    return (first - second).abs().mean((1, 2, 3))


def contrast(student: Tensor, teacher: Tensor, negatives: int) -> Tensor:
    """Return q of each image.

    Args:
        student: B x C x h x w, behind the adapter.
        teacher: B x C x h x w.
        negatives: K, less than B.

    Returns:
        B.
    """
    apart = [distance(student, other) for other in others(teacher, negatives)]
    return distance(student, teacher) / (torch.stack(apart).mean(0) + EPSILON)


def teacher_is_better(batch: DistillationBatch, teacher: int) -> Tensor:
    """Return g: for each image 1 where the teacher is nearer to the ground truth, otherwise 0."""
    theirs = distance(batch.teachers[teacher], batch.gt)
    mine = distance(batch.student.detach(), batch.gt)
    return (theirs < mine).float()


@register
class FACD(Distiller):
    """Contrastive feature distillation on patches where the teacher is better (FACD-style)."""

    default_weights: ClassVar = {"contrastive": 0.5, "output": 1.0}
    paper: ClassVar = "Moon et al., arXiv 2211.15951"
    year: ClassVar = 2022

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        kernel: Literal[1, 3] = 1,
        negatives: int = 8,
        adaptive: bool = True,
    ) -> None:
        """Build the adapters.

        Args:
            setting: taps and scale.
            weights: weights of the terms ``contrastive`` and ``output``.
            kernel: kernel size of the adapter.
            negatives: K, other images for each image; at most what the batch has.
            adaptive: whether features are distilled only where the teacher's patch is better
                than the student's; false: everywhere.

        Raises:
            LsfdError: there is no negative.
        """
        super().__init__(setting, weights)
        if negatives < 1:
            raise LsfdError(f"negatives: must be at least 1, not {negatives}")
        self.regressors = Regressors(setting, kernel)
        self.negatives = negatives
        self.adaptive = adaptive

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"contrastive": ..., "output": ...}``.

        Raises:
            LsfdError: an image has no other in its batch.
        """
        negatives = min(self.negatives, len(batch.lq) - 1)
        if negatives < 1:
            raise LsfdError(
                "datasets.train.batch_size_per_gpu: FACD contrasts an image with others of its "
                "batch and needs at least 2 at a time (train.accumulate divides a batch)"
            )
        losses = []
        for teacher in range(len(self.setting.taps)):
            pairs = self.regressors(batch, teacher)
            ratios = torch.stack([contrast(mine, theirs, negatives) for mine, theirs in pairs]).sum(
                0
            )
            if self.adaptive:
                ratios = ratios * teacher_is_better(batch, teacher)
            losses.append(ratios.mean())
        return {"contrastive": torch.stack(losses).mean(), "output": output_loss(batch)}
