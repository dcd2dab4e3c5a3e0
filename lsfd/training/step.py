"""Student and distillers as one module: what is wrapped for distributed training.

Losses are computed inside ``forward``, so that the gradients of regressors and the like are
averaged over processes together with the student's, and no feature has to leave the wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lsfd.distillers import DistillationBatch, Distiller


class DistillationStep(nn.Module):
    """One forward pass of the student and all its loss terms."""

    def __init__(
        self, student: nn.Module, distillers: Mapping[str, Distiller], pixel_loss: nn.Module | None
    ) -> None:
        """Keep the parts.

        Args:
            student: maps lq to (output, features by tap name), e.g. a ``TappedNetwork``.
            distillers: by the name under which their terms are logged.
            pixel_loss: reconstruction loss of (output, gt), already weighted; None for none.
        """
        super().__init__()
        self.student = student
        self.distillers = nn.ModuleDict(distillers)
        self.pixel_loss = pixel_loss

    def forward(
        self,
        lq: Tensor,
        gt: Tensor,
        teachers: Sequence[Tensor],
        teacher_features: Sequence[Mapping[str, Tensor]],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the weighted loss terms by the names under which they are logged.

        Args:
            lq: B x 3 x h x w in 0..1.
            gt: B x 3 x sh x sw in 0..1.
            teachers: each teacher's output, B x 3 x sh x sw.
            teacher_features: for each teacher its features by tap name.
            step: iteration, counted from 1.
        """
        output, features = self.student(lq)
        output = output.float()
        batch = DistillationBatch(lq, gt, output, teachers, features, teacher_features, step)
        terms = {}
        if self.pixel_loss is not None:
            terms["l_pix"] = self.pixel_loss(output, gt)
        for name, distiller in self.distillers.items():
            assert isinstance(distiller, Distiller)
            for term, value in distiller(batch).items():
                terms[f"l_{name}_{term}"] = distiller.weights[term] * value
        return terms
