"""FAKD: the student's features have the same affinities as the teacher's.

For each pair of taps, with F_S (B x Cs x h x w) and F_T (B x Ct x h x w, no gradient), and the
affinity A of either one of

    spatial    A[b,i,j] = <u_i, u_j>,  u_i: the unit vector over channels at pixel i    B x hw x hw
    channel    A[b,c,d] = <u_c, u_d>,  u_c: the unit vector over pixels of channel c    B x C x C
    instance   A[b,:]   = Q[b,:] / ||Q[b,:]||_2,  Q[b,d] = <F[b], F[d]>                 B x B

the terms are

    L_affinity = sum over taps of mean |A_S - A_T|,   L_output = mean |S(x) - sg T(x)|

averaged over teachers; S(x), T(x): B x 3 x sh x sw; sg: stop-gradient. Spatial and instance
affinities need no regressor for unequal widths; channel affinities have to be of one size. With
``pool`` above 1 features are pooled first. He et al., "FAKD: Feature-Affinity Based Knowledge
Distillation for Efficient Image Super-Resolution" (ICIP 2020).

What is established, from the official code: the affinities, the distance, the three taps, the
max- or average-pooled spatial affinity, and, for images in 0..255,

    0.5 L1(S, y) + 0.5 L1(S, T) + 10 L_affinity

For images in 0..1, and divided by 0.5 so that the reconstruction loss keeps its weight of 1, this
is L1(S, y) + L1(S, T) + 10 / 127.5 L_affinity: the default weights. (With 0.5 for both L1 terms
the affinity has 10 / 255.)

The code's third tap is the convolution after the body, but the long skip is added to that tensor in
place before the loss is computed: what it compares is the feature *after* the skip, the input of
the upsampler. That is the tap ``upsample:input`` of EDSR and RCAN here; ``taps: auto`` ends before
the skip. options/methods/edsr_x4_fakd.yml names the official taps.

What we do otherwise: the code draws one of several teachers for each batch, we average over them;
its instance affinity is not a number for zero features, ours is finite; pooling works with every
affinity, there with the spatial one only. Affinities are computed in float32 even under autocast,
and the spatial one by parts: its hw x hw entries never exist at once (:class:`_SpatialDistance`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.output import output_loss
from lsfd.errors import LsfdError

EPSILON = 1e-8

CHUNK = 1 << 22
"""Entries of a spatial affinity that are computed at once: 16 MiB, in a few copies."""


def unit(feature: Tensor, dim: int) -> Tensor:
    """Scale to unit length along ``dim``; zero stays zero, with a gradient of ordinary size."""
    norm = torch.linalg.vector_norm(feature, dim=dim, keepdim=True)
    return feature / norm.masked_fill(norm < EPSILON, 1.0)


class _SpatialDistance(torch.autograd.Function):
    """mean |U_S^T U_S - U_T^T U_T| for U: B x C x n, with memory for CHUNK entries of B x n x n.

    With D the difference and G = sign(D) / (B n n), symmetric, the gradient of the loss is
    2 U_S G. Rows of D are independent of each other in both, so that value and gradient take one
    pass, and nothing but the gradient (B x C x n) is kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar distance."""
        batch, _, pixels = student.shape
        rows = max(1, CHUNK // (batch * pixels))
        learns = ctx.needs_input_grad[0]
        total = student.new_zeros(())
        gradient = torch.empty_like(student) if learns else None
        for first in range(0, pixels, rows):
            part = slice(first, first + rows)
            difference = student[:, :, part].mT @ student
            difference -= teacher[:, :, part].mT @ teacher
            if gradient is not None:
                gradient[:, :, part] = student @ difference.sign().mT
            total += difference.abs_().sum()
        entries = batch * pixels**2
        if gradient is not None:
            ctx.save_for_backward(gradient.mul_(2 / entries))
        return total / entries

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the student's U; the teacher has none."""
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None


def spatial_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how far apart the affinities of pixels are: mean |A_S - A_T|.

    Args:
        student: B x Cs x h x w.
        teacher: B x Ct x h x w, without gradient.
    """
    distance: Tensor = _SpatialDistance.apply(
        unit(student.flatten(2), 1), unit(teacher.flatten(2), 1)
    )
    return distance


def channel_affinity(feature: Tensor) -> Tensor:
    """Return the cosines between channels, B x C x C, of a feature B x C x h x w."""
    units = unit(feature.flatten(2), 2)
    return units @ units.mT


def instance_affinity(feature: Tensor) -> Tensor:
    """Return the products of the batch's features with each other, B x B, rows of unit length."""
    flat = feature.flatten(1)
    return unit(flat @ flat.mT, 1)


@register
class FAKD(Distiller):
    """Affinities between pixels (or channels, or images) as in the teacher's features."""

    default_weights: ClassVar = {"affinity": 10 / 127.5, "output": 1.0}
    paper: ClassVar = "He et al., doi 10.1109/ICIP40778.2020.9190917"
    year: ClassVar = 2020

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        affinity: Literal["spatial", "channel", "instance"] = "spatial",
        pool: int = 1,
        pooling: Literal["max", "avg"] = "max",
    ) -> None:
        """Check that the affinities can be compared.

        Args:
            setting: taps and scale.
            weights: weights of the terms ``affinity`` and ``output``.
            affinity: between what: ``spatial``, the pixels of an image; ``channel``, its channels
                (student and teacher of equal width); ``instance``, the images of a batch.
            pool: features are first pooled over squares of this side; 1: they are not.
            pooling: by their ``max`` or ``avg``.

        Raises:
            LsfdError: ``pool`` is less than 1, or channels are compared that differ in number.
        """
        super().__init__(setting, weights)
        if pool < 1:
            raise LsfdError(f"pool: must be at least 1, not {pool}")
        if affinity == "channel":
            _check_widths(setting)
        self.affinity = affinity
        self.pool = pool
        self.pooling = pooling

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"affinity": ..., "output": ...}``."""
        # Autocast would multiply in bf16, whose rounding is as large as what is compared.
        with torch.autocast(batch.lq.device.type, enabled=False):
            losses = [
                self.distance(batch.student_features[tap.student], features[tap.teacher])
                for taps, features in zip(self.setting.taps, batch.teacher_features, strict=True)
                for tap in taps
            ]
            affinity = torch.stack(losses).sum() / len(self.setting.taps)
        return {"affinity": affinity, "output": output_loss(batch)}

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean absolute difference of two features' affinities."""
        student, teacher = self._pooled(student.float()), self._pooled(teacher.float())
        if self.affinity == "spatial":
            return spatial_distance(student, teacher)
        measure = channel_affinity if self.affinity == "channel" else instance_affinity
        return functional.l1_loss(measure(student), measure(teacher))

    def _pooled(self, feature: Tensor) -> Tensor:
        pool = functional.max_pool2d if self.pooling == "max" else functional.avg_pool2d
        # The last squares may be cut off by the border: no pixel is left out.
        return feature if self.pool == 1 else pool(feature, self.pool, ceil_mode=True)


def _check_widths(setting: Setting) -> None:
    for taps in setting.taps:
        for tap in taps:
            if tap.student_channels != tap.teacher_channels:
                raise LsfdError(
                    "affinity: 'channel' needs features of equal width, but "
                    f"'{tap.student}' has {tap.student_channels} channels and the teacher's "
                    f"'{tap.teacher}' {tap.teacher_channels}; choose 'spatial' or 'instance'"
                )
