"""Output distillation: the student imitates the teacher's image.

    L_output = mean over teachers of mean |S(x) - sg T(x)|

S(x), T(x): B x 3 x sh x sw; sg: stop-gradient. The counterpart in super-resolution of Hinton et
al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531): an image has no softmax, so
the temperature goes and the divergence becomes L1.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, register


def output_loss(batch: DistillationBatch) -> Tensor:
    """Return the L1 distance between student and teacher image, averaged over teachers."""
    return torch.stack(
        [functional.l1_loss(batch.student, teacher) for teacher in batch.teachers]
    ).mean()


@register
class Output(Distiller):
    """L1 to the teacher's output, and nothing else."""

    default_weights: ClassVar = {"output": 1.0}
    paper: ClassVar = "Hinton et al., arXiv 1503.02531"
    year: ClassVar = 2015
    uses_features: ClassVar = False

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"output": ...}``."""
        return {"output": output_loss(batch)}
