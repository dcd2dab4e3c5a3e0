"""The phases of a run: the stages that methods ask for, then the student's own training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lsfd.distillers import Distiller, Stage, Turn
from lsfd.errors import LsfdError


@dataclass(frozen=True)
class Phase:
    """Iterations in which one thing is minimised.

    Attributes:
        first: its first iteration, counted from 1.
        last: its last iteration.
        method: the distiller whose stage this is; "" for the student's own training.
        stage: that stage; None for the student's own training.
    """

    first: int
    last: int
    method: str = ""
    stage: Stage | None = None

    @property
    def length(self) -> int:
        """Number of iterations."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class MethodTurn:
    """An optimiser step that a method takes after the common one.

    Attributes:
        method: the name under which the method's terms are logged.
        turn: its turn.
    """

    method: str
    turn: Turn


def plan(distillers: Mapping[str, Distiller], total_iter: int) -> list[Phase]:
    """Divide a run: every stage of every method in turn, the student's training in what is left.

    Stages are part of ``total_iter``, so that runs of one length are comparable whatever a method
    has to learn first.

    Raises:
        LsfdError: the stages leave nothing of ``total_iter``.
    """
    phases: list[Phase] = []
    done = 0
    for name, distiller in distillers.items():
        for stage in distiller.stages():
            if stage.iterations > 0:
                phases.append(Phase(done + 1, done + stage.iterations, name, stage))
                done += stage.iterations
    if done >= total_iter:
        stages = ", ".join(f"{p.stage.name} {p.length}" for p in phases if p.stage)
        raise LsfdError(
            f"{total_iter} iterations are no more than what the methods' stages take ({stages}); "
            "raise it, or lower the stages' iterations in distillers"
        )
    return [*phases, Phase(done + 1, total_iter)]


def phase_at(phases: list[Phase], iteration: int) -> Phase:
    """Return the phase of an iteration, counted from 1."""
    return next(phase for phase in phases if iteration <= phase.last)
