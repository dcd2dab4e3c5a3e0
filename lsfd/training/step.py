"""Student, peers and distillers as one module: what is wrapped for distributed training.

Losses are computed inside ``forward``, so that the gradients of regressors and the like are
averaged over processes together with the student's, and no feature has to leave the wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lsfd.distillers import DistillationBatch, Distiller, Network
from lsfd.errors import LsfdError
from lsfd.training.assembly import Window
from lsfd.training.phases import MethodTurn, Phase


class DistillationStep(nn.Module):
    """One forward pass of the student and all its loss terms."""

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        distillers: Mapping[str, Distiller],
        windows: Mapping[str, Window],
        pixel_loss: nn.Module | None,
    ) -> None:
        """Keep the parts.

        Args:
            student: maps lq to (output, features by tap name), e.g. a ``TappedNetwork``.
            peers: the same for each network that is trained beside the student.
            distillers: by the name under which their terms are logged.
            windows: when each of them takes part.
            pixel_loss: reconstruction loss of (output, gt), already weighted, of the student and
                of each peer; None for none.
        """
        super().__init__()
        self.student = student
        self.peers = nn.ModuleList(peers)
        self.distillers = nn.ModuleDict(distillers)
        self.windows = windows
        self.pixel_loss = pixel_loss

    def active(self, phase: Phase, step: int) -> dict[str, Distiller]:
        """Return the methods that have a say in an iteration, by name.

        In a stage this is the stage's method; otherwise those in whose window the iteration lies
        and that have a weight other than zero.
        """
        methods = {name: cast(Distiller, method) for name, method in self.distillers.items()}
        if phase.stage is not None:
            return {phase.method: methods[phase.method]}
        return {
            name: method
            for name, method in methods.items()
            if step in self.windows[name] and any(method.weights.values())
        }

    def forward(
        self,
        lq: Tensor,
        gt: Tensor,
        teachers: Sequence[Tensor],
        teacher_features: Sequence[Mapping[str, Tensor]],
        teacher_networks: Sequence[Network],
        phase: Phase,
        step: int,
        turn: MethodTurn | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted loss terms by the names under which they are logged.

        Args:
            lq: B x 3 x h x w in 0..1.
            gt: B x 3 x sh x sw in 0..1.
            teachers: each teacher's output, B x 3 x sh x sw.
            teacher_features: for each teacher its features by tap name.
            teacher_networks: the teachers themselves.
            phase: what is trained in this iteration.
            step: iteration, counted from 1.
            turn: the method's step that is taken; None: the common one.

        Raises:
            LsfdError: no term is minimised in this iteration.
        """
        methods = self.active(phase, step)
        runs = phase.stage is None or phase.stage.runs_student
        results: dict[str, Any] = {"student": lq.new_empty(0), "student_features": {}}
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and (turn is None or turn.turn.trains_networks)
        ):
            if runs:
                results = self._networks(lq, methods)
        batch = DistillationBatch(
            lq=lq,
            gt=gt,
            teachers=teachers,
            teacher_features=teacher_features,
            step=step,
            student_network=cast(Network, self.student),
            teacher_networks=teacher_networks,
            **results,
        )
        if phase.stage is not None:
            prefix = f"l_{phase.method}_{phase.stage.name}"
            terms = methods[phase.method].stage_terms(phase.stage, batch)
            return {f"{prefix}_{term}": value for term, value in terms.items()}
        if turn is not None:
            terms = methods[turn.method].turn_terms(turn.turn, batch)
            return {f"l_{turn.method}_{term}": value for term, value in terms.items()}
        return self._common_terms(batch, methods)

    def _networks(self, lq: Tensor, methods: Mapping[str, Distiller]) -> dict[str, Any]:
        """Run student and peers; return what a batch holds of them."""
        inputs: dict[str, Tensor] = {}
        for method in methods.values():
            inputs.update(method.inputs(lq))
        output, features = self.student(lq, inputs=inputs) if inputs else self.student(lq)
        peers = [peer(lq) for peer in self.peers]
        return {
            "student": output.float(),
            "student_features": features,
            "inputs": inputs,
            "peers": [output.float() for output, _ in peers],
            "peer_features": [features for _, features in peers],
        }

    def _common_terms(
        self, batch: DistillationBatch, methods: Mapping[str, Distiller]
    ) -> dict[str, Tensor]:
        """Return the weighted terms of the common optimiser step."""
        terms = {}
        if self.pixel_loss is not None:
            terms["l_pix"] = self.pixel_loss(batch.student, batch.gt)
            for number, peer in enumerate(batch.peers, start=1):
                terms[f"l_pix_peer{number}"] = self.pixel_loss(peer, batch.gt)
        for name, method in methods.items():
            weight = self.windows[name].weight
            for term, value in method(batch).items():
                terms[f"l_{name}_{term}"] = weight * method.weights[term] * value
        if not terms:
            raise LsfdError(
                f"iteration {batch.step}: there is no loss to minimise; give train.pixel_opt, or a "
                "distiller with a weight whose start and end include this iteration"
            )
        return terms
