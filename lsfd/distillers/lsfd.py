"""LSFD: local-selective feature distillation (Park and Kwak, arXiv 2111.10988).

For each pair of taps l, with the student's feature F_S (B x Cs x h x w) and the teacher's F_T
(B x Ct x h x w, no gradient):

    P = r_l(F_S)                       r_l: 3 x 3 convolution Cs -> Ct
    a[b,i,j] = mean_c |F_T - P|        how far apart they are at each pixel   ("local")
    A[b,i,j] = sg(a / mean_ij a)       teacher-student-difference attention    ("selective")
    L_l      = mean_bij (A * a)

    L_feature = sum_l L_l,   L_output = mean |S(x) - sg T(x)|

sg is the stop-gradient. The reconstruction loss L1(S(x), y) is the trainer's, beside these terms.

What the paper states: FitNet-style regression is too weak for super-resolution; feature
distillation should use local feature information; a soft attention made from the teacher-student
difference emphasises pixel locations; nothing extra remains at test time.

What is our choice, because the paper's formulae were not available to us: the 3 x 3 regressor, the
L1 distance, the mean-1 normalisation of the attention, its source in feature space, the taps, the
weights. The alternatives are options, so that each reading can be tried; results/README.md has them
side by side. "Local" read as narrowly as can be is ``kernel: 1``, where the loss at a pixel depends
on the student's feature at that pixel alone: three seeds out of three were better with 3 x 3 on
Set5, Set14 and Urban100, and both were level on T91.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.output import output_loss
from lsfd.distillers.regressor import Regressors

Distance = Literal["l1", "l2", "l2_normalized"]
Attention = Literal["feature", "output", "teacher_error", "none"]
Normalization = Literal["mean", "softmax", "minmax", "l2"]

EPSILON = 1e-8

_DIFFERENCES = {"l1": functional.l1_loss, "l2": functional.mse_loss}


def feature_distance(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Return how far apart two features are at each pixel.

    Args:
        student: B x C x h x w, the projected student feature.
        teacher: B x C x h x w.
        distance: ``l1``: mean absolute difference over channels; ``l2``: mean squared difference;
            ``l2_normalized``: squared difference after each pixel's feature vector is scaled to
            unit length (summed over channels: 0..4).

    Returns:
        B x 1 x h x w, at least 0.
    """
    if distance in _DIFFERENCES:
        # Written so that no tensor of the features' size comes up that is not needed: their memory
        # takes longer than the arithmetic.
        difference = _DIFFERENCES[distance](student, teacher, reduction="none")
        return difference.sum(1, keepdim=True) / difference.shape[1]
    unit_student = functional.normalize(student, dim=1, eps=EPSILON)
    unit_teacher = functional.normalize(teacher, dim=1, eps=EPSILON)
    return (unit_teacher - unit_student).square().sum(1, keepdim=True)


def image_difference(first: Tensor, second: Tensor, scale: int) -> Tensor:
    """Return the mean absolute difference of two images on the low-resolution grid.

    Args:
        first: B x 3 x sh x sw.
        second: B x 3 x sh x sw.
        scale: s; the difference is averaged over s x s pixels.

    Returns:
        B x 1 x h x w.
    """
    return functional.avg_pool2d((first - second).abs().mean(1, keepdim=True), scale)


def normalized_attention(
    difference: Tensor, normalization: Normalization, temperature: float = 1.0
) -> Tensor:
    """Turn a map of differences into attention; a constant map gives 1 everywhere.

    Args:
        difference: B x 1 x h x w, at least 0.
        normalization: ``mean``: divided by the image's mean, so that the mean is 1; ``softmax``:
            softmax over pixels of difference / temperature, times h*w (mean 1); ``minmax``:
            stretched to 0..1; ``l2``: divided by the image's root mean square.
        temperature: of the softmax.

    Returns:
        B x 1 x h x w, at least 0.
    """
    if normalization == "softmax":
        pixels = difference.shape[2] * difference.shape[3]
        return (difference / temperature).flatten(2).softmax(2).view_as(difference) * pixels
    low = torch.zeros_like(difference[:, :, :1, :1])
    if normalization == "mean":
        span = difference.mean((2, 3), keepdim=True)
    elif normalization == "l2":
        # vector_norm's gradient at zero is zero; that of sqrt is infinite.
        norm = torch.linalg.vector_norm(difference, dim=(2, 3), keepdim=True)
        span = norm / (difference.shape[2] * difference.shape[3]) ** 0.5
    else:
        low = difference.amin((2, 3), keepdim=True)
        span = difference.amax((2, 3), keepdim=True) - low
    flat = span < EPSILON
    return torch.where(flat, 1.0, (difference - low) / span.masked_fill(flat, 1.0))


@register
class LSFD(Distiller):
    """Local feature distillation weighted by where student and teacher disagree."""

    default_weights: ClassVar = {"feature": 0.3, "output": 1.0}
    paper: ClassVar = "Park and Kwak, arXiv 2111.10988"
    year: ClassVar = 2021

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        kernel: Literal[1, 3, 5] = 3,
        distance: Distance = "l1",
        attention: Attention = "feature",
        normalization: Normalization = "mean",
        temperature: float = 1.0,
        detach: bool = True,
        shared: bool = False,
    ) -> None:
        """Build the regressors.

        Args:
            setting: taps and scale.
            weights: weights of the terms ``feature`` and ``output``.
            kernel: kernel size of the regressor; with 1 the loss at a pixel depends on the
                student's feature at that pixel alone.
            distance: see :func:`feature_distance`.
            attention: what the attention is made from: ``feature``, the distance itself;
                ``output``, student image against teacher image; ``teacher_error``, teacher image
                against ground truth; ``none``, 1 everywhere (plain local distillation).
            normalization: see :func:`normalized_attention`.
            temperature: of the ``softmax`` normalisation, in units of the difference.
            detach: whether no gradient flows through the attention.
            shared: whether all taps share one attention, made from the mean of their maps.
        """
        super().__init__(setting, weights)
        self.regressors = Regressors(setting, kernel)
        self.distance = distance
        self.attention = attention
        self.normalization = normalization
        self.temperature = temperature
        self.detach = detach
        self.shared = shared

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"feature": ..., "output": ...}``, averaged over teachers."""
        per_teacher = []
        for index in range(len(self.setting.taps)):
            distances = self.distances(batch, index)
            attentions = self.attention_maps(batch, index, distances)
            terms = [(a * d).mean() for a, d in zip(attentions, distances, strict=True)]
            per_teacher.append(torch.stack(terms).sum())
        return {"feature": torch.stack(per_teacher).mean(), "output": output_loss(batch)}

    def maps(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return the attention at each pair of taps, numbered from the second teacher on."""
        maps = {}
        for index, taps in enumerate(self.setting.taps):
            attentions = self.attention_maps(batch, index, self.distances(batch, index))
            for tap, attention in zip(taps, attentions, strict=True):
                pair = dict.fromkeys((tap.student, tap.teacher))
                maps["_".join([*pair, *([str(index + 1)] if index else [])])] = attention
        return maps

    def distances(self, batch: DistillationBatch, teacher: int = 0) -> list[Tensor]:
        """Return for each pair of taps the map of distances, B x 1 x h x w."""
        return [
            feature_distance(student, target, self.distance)
            for student, target in self.regressors(batch, teacher)
        ]

    def attention_maps(
        self, batch: DistillationBatch, teacher: int, distances: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return for each pair of taps the attention, B x 1 x h x w."""
        if self.attention == "none":
            return [torch.ones_like(distance) for distance in distances]
        if self.attention == "feature":
            sources = list(distances)
        else:
            reference = batch.student if self.attention == "output" else batch.gt
            difference = image_difference(batch.teachers[teacher], reference, self.setting.scale)
            sources = [difference] * len(distances)
        if self.detach:
            sources = [source.detach() for source in sources]
        if self.shared:
            sources = [torch.stack(sources).mean(0)] * len(sources)
        return [
            normalized_attention(source, self.normalization, self.temperature) for source in sources
        ]
