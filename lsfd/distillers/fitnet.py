"""FitNet: the student's features, through a regressor, regress the teacher's ("hints").

    L_feature = sum over taps l of d(F_T^l, r_l(F_S^l))

F_S: B x Cs x h x w, F_T: B x Ct x h x w; r: a k x k convolution Cs -> Ct, trained jointly;
d: half the mean squared difference (l2, the paper's) or the mean absolute difference (l1).
Averaged over teachers. Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv 1412.6550). The
paper trains the hint first and the task afterwards; here both are trained together, as the
super-resolution papers that compare with FitNet do.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.regressor import Regressors


@register
class FitNet(Distiller):
    """Hint regression on raw features."""

    default_weights: ClassVar = {"feature": 1e-4}
    paper: ClassVar = "Romero et al., arXiv 1412.6550"
    year: ClassVar = 2014

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        kernel: Literal[1, 3] = 3,
        distance: Literal["l1", "l2"] = "l2",
    ) -> None:
        """Build the regressors.

        Args:
            setting: taps and scale.
            weights: weight of the term ``feature``.
            kernel: kernel size of the regressor.
            distance: ``l2`` as in the paper, or ``l1``.
        """
        super().__init__(setting, weights)
        self.regressors = Regressors(setting, kernel)
        self.distance = distance

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"feature": ...}``."""
        teachers = range(len(self.setting.taps))
        losses = [
            self._distance(student, target)
            for teacher in teachers
            for student, target in self.regressors(batch, teacher)
        ]
        return {"feature": torch.stack(losses).sum() / len(teachers)}

    def _distance(self, projected: Tensor, target: Tensor) -> Tensor:
        if self.distance == "l1":
            return functional.l1_loss(projected, target)
        return 0.5 * functional.mse_loss(projected, target)
