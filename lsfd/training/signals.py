"""SIGINT and SIGTERM end a run after the current step, not in the middle of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import distributed

from lsfd.training.distributed import Processes


class StopSignals:
    """Context in which the two signals are noted; SIGINT after another interrupts at once.

    A repeated SIGTERM changes nothing: Slurm and torchrun may both send one.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self._processes = processes
        self._device = device
        self._received = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python delivers signals to the main thread only; elsewhere (a notebook's worker, say)
        # the program around us keeps its own handling.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = self._received or number

    def received(self) -> int:
        """Return the number of the signal that any process received, 0 for none.

        All processes call this once a step and get the same answer, so that all stop at one step.
        """
        if not self._processes.distributed:
            return self._received
        flag = torch.tensor(self._received, device=self._device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return int(flag)


def ignore_signals() -> None:
    """Leave a signal to the whole group to the trainer; for the loader's processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
