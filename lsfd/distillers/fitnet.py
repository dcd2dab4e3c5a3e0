"""FitNet: the student's features, through a regressor, regress the teacher's ("hints").

    L_feature = sum over taps l of d(F_T^l, r_l(F_S^l))

F_S: B x Cs x h x w, F_T: B x Ct x h x w; r: a k x k convolution Cs -> Ct, trained jointly;
d: half the mean squared difference (l2, the paper's) or the mean absolute difference (l1).
Averaged over teachers. Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv 1412.6550).

The paper has one hint in the middle of the networks and trains in two stages: first the hint
alone, which teaches the student's layers up to the tap, then the task together with distillation of
the output. That is ``hint_iter`` above 0 with a weight of 0 afterwards, one pair of taps, and the
method Output beside this one: options/methods/edsr_x4_fitnet_two_stage.yml. The super-resolution
papers that compare with FitNet train hint and task together, at several taps, as is the default
here; FAKD's official code does so with ``kernel: 0`` and ``l1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Stage, register
from lsfd.distillers.regressor import Regressors
from lsfd.errors import LsfdError


@register
class FitNet(Distiller):
    """Hint regression on raw features."""

    default_weights: ClassVar = {"feature": 3e-2}
    paper: ClassVar = "Romero et al., arXiv 1412.6550"
    year: ClassVar = 2014

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        kernel: Literal[0, 1, 3] = 3,
        distance: Literal["l1", "l2"] = "l2",
        hint_iter: int = 0,
    ) -> None:
        """Build the regressors.

        Args:
            setting: taps and scale.
            weights: weight of the term ``feature``.
            kernel: kernel size of the regressor; 0: none, for features of equal width.
            distance: ``l2`` as in the paper, or ``l1``.
            hint_iter: iterations at the run's begin in which nothing but the hints is trained: the
                student's layers up to its last tap, and the regressors. 0: no such stage.

        Raises:
            LsfdError: ``hint_iter`` is negative, or widths differ and ``kernel`` is 0.
        """
        super().__init__(setting, weights)
        if hint_iter < 0:
            raise LsfdError(f"hint_iter: must be at least 0, not {hint_iter}")
        self.regressors = Regressors(setting, kernel)
        self.distance = distance
        self.hint_iter = hint_iter

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"feature": ...}``."""
        teachers = range(len(self.setting.taps))
        losses = [
            self._distance(student, target)
            for teacher in teachers
            for student, target in self.regressors(batch, teacher)
        ]
        return {"feature": torch.stack(losses).sum() / len(teachers)}

    def stages(self) -> Sequence[Stage]:
        """Return the hint stage."""
        return (Stage("hint", self.hint_iter),)

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"feature": ...}``: no other loss reaches the student in this stage."""
        return self(batch)

    def _distance(self, projected: Tensor, target: Tensor) -> Tensor:
        if self.distance == "l1":
            return functional.l1_loss(projected, target)
        return 0.5 * functional.mse_loss(projected, target)
