"""What a run says while it goes: progress bar, log file, records, TensorBoard, curves."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lsfd.reporting.curves import save_run_curves
from lsfd.training.folder import RunFolder
from lsfd.training.records import append_record, read_records

LOGGER = logging.getLogger("lsfd")


class Reporter:
    """Context of a running training; only the first process has one."""

    def __init__(
        self, folder: RunFolder, name: str, total: int, done: int, use_tensorboard: bool
    ) -> None:
        self._folder = folder
        self._name = name
        self._total = total
        self._done = done
        self._since = time.perf_counter()
        self._board = (
            SummaryWriter(str(folder.tensorboard), purge_step=done + 1) if use_tensorboard else None
        )
        # A terminal shows the bar; a file or pipe gets a line every print_freq instead.
        self._bar = tqdm(total=total, initial=done, desc=name, disable=None, unit="it")
        self._redirect = logging_redirect_tqdm([LOGGER])

    def __enter__(self) -> Reporter:
        self._redirect.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._redirect.__exit__(kind, error, traceback)
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def step(self) -> None:
        """Count one iteration."""
        self._bar.update()

    def losses(self, iteration: int, losses: Mapping[str, float], lr: float, skipped: int) -> None:
        """Report the named losses, averaged since the last report."""
        seconds = (time.perf_counter() - self._since) / max(iteration - self._done, 1)
        self._since, self._done = time.perf_counter(), iteration
        record: dict[str, Any] = {
            "kind": "train",
            "iteration": iteration,
            "losses": dict(losses),
            "lr": lr,
            "seconds_per_iteration": seconds,
            "skipped": skipped,
        }
        append_record(self._folder.records, record)
        shown = {name: f"{value:.4g}" for name, value in losses.items()}
        self._bar.set_postfix(shown)
        left = timedelta(seconds=round(seconds * (self._total - iteration)))
        line = ", ".join(f"{name} {value}" for name, value in shown.items())
        tail = f", {skipped} steps skipped" if skipped else ""
        LOGGER.log(
            logging.DEBUG if not self._bar.disable else logging.INFO,
            "%d/%d: %s, lr %.3g, %.3f s/it, %s left%s",
            iteration, self._total, line, lr, seconds, left, tail,
        )  # fmt: skip
        for name, value in losses.items():
            self._scalar(f"losses/{name}", value, iteration)
        self._scalar("lr", lr, iteration)

    def scores(self, iteration: int, name: str, scores: Mapping[str, float], best: str) -> None:
        """Report the validation scores of one set."""
        append_record(
            self._folder.records,
            {"kind": "val", "iteration": iteration, "set": name, "scores": dict(scores)},
        )
        line = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items())
        LOGGER.info("%d/%d: %s: %s%s", iteration, self._total, name, line, best)
        for metric, value in scores.items():
            self._scalar(f"metrics/{name}/{metric}", value, iteration)

    def restart_clock(self) -> None:
        """Leave the time since the last report (a validation, say) out of the seconds a step."""
        self._since = time.perf_counter()

    def curves(self) -> None:
        """Draw all records so far."""
        save_run_curves(read_records(self._folder.records), self._folder.curves, self._name)

    def _scalar(self, tag: str, value: float, iteration: int) -> None:
        if self._board is not None:
            self._board.add_scalar(tag, value, iteration)


def log_to(file: Path | None) -> None:
    """Send log lines to the terminal, and everything to ``file`` as well."""
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    console.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(console)
    if file is not None:
        writer = logging.FileHandler(file, encoding="utf-8")
        writer.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        LOGGER.addHandler(writer)
