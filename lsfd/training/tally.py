"""What a training model counts: the means of its losses, and the steps that it skipped."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from lsfd.errors import LsfdError
from lsfd.training.distributed import Processes

LOGGER = logging.getLogger("lsfd")


class LossMeans:
    """Named losses, summed up since they were last asked for."""

    def __init__(self, device: torch.device, processes: Processes) -> None:
        """Begin with none."""
        self._device, self._processes = device, processes
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, int] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add a step's losses without waiting for the device."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            self._steps[name] = self._steps.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return each loss, averaged over processes and the steps that had it, and begin anew."""
        if not self._sums:
            return {}
        values = torch.stack([value / self._steps[name] for name, value in self._sums.items()])
        if self._processes.distributed:
            distributed.all_reduce(values)
            values = values / self._processes.world_size
        means = dict(zip(self._sums, values.tolist(), strict=True))
        self._sums, self._steps = {}, {}
        return means

    def state(self) -> list[Any]:
        """Return this process's sums, and of how many steps each is."""
        return [{name: value.cpu() for name, value in self._sums.items()}, dict(self._steps)]

    def load_state(self, state: Sequence[Any]) -> None:
        """Put back what :meth:`state` returned."""
        sums, steps = state
        self._sums = {name: value.to(self._device) for name, value in sums.items()}
        # An older version has one number for all.
        self._steps = dict.fromkeys(sums, steps) if isinstance(steps, int) else dict(steps)


class SkippedSteps:
    """Iterations in which something was not finite, and therefore skipped.

    Attributes:
        total: how many.
    """

    def __init__(self, most: int, processes: Processes) -> None:
        """Begin with none.

        Args:
            most: in a row, after which training ends.
            processes: of which the first tells of them.
        """
        self._most, self._processes = most, processes
        self.total = self._in_a_row = 0

    def count(self, iteration: int, problem: str) -> None:
        """Count and tell what was skipped in an iteration; "": nothing was.

        Raises:
            LsfdError: it was one too many in a row.
        """
        if not problem:
            self._in_a_row = 0
            return
        self.total += 1
        self._in_a_row += 1
        if self._in_a_row >= self._most:
            raise LsfdError(
                f"iteration {iteration}: the loss or its gradient was not finite for "
                f"{self._in_a_row} steps in a row (train.max_skipped), in the last one "
                f"{problem}; lower train.optim_g.lr, set train.clip_grad_norm, or use "
                "train.precision: fp32, and go on from the last checkpoint with path.resume_state"
            )
        if self._processes.is_first:
            LOGGER.warning("iteration %d: skipped, %s", iteration, problem)

    def state(self) -> list[int]:
        """Return how many, and how many in a row."""
        return [self.total, self._in_a_row]

    def load_state(self, state: Sequence[int]) -> None:
        """Put back what :meth:`state` returned."""
        self.total, self._in_a_row = state
