"""Plain: no distillation; the student learns from the ground truth alone.

The baseline that every method has to beat at equal budget. It has no term of its own: the
reconstruction loss L1(S(x), y) is the trainer's.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lsfd.distillers.base import DistillationBatch, Distiller, register


@register
class Plain(Distiller):
    """No teacher: the baseline."""

    default_weights: ClassVar = {}
    paper: ClassVar = ""
    year: ClassVar = None
    needs_teacher: ClassVar = False
    uses_features: ClassVar = False

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return no term."""
        return {}
