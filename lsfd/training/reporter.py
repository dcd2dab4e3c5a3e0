"""What a run says while it goes: progress bar, log file, records, TensorBoard, curves."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm.contrib.logging import logging_redirect_tqdm

from lsfd.disk import disk_error
from lsfd.reporting.curves import save_run_curves
from lsfd.terminal import visible
from lsfd.training.bar import Bar
from lsfd.training.folder import RunFolder
from lsfd.training.records import RESUME, append_record, read_records

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
        self._board: SummaryWriter | None = None
        self._use_tensorboard = use_tensorboard
        self._excepthook = threading.excepthook
        # A terminal shows the bar; a file or pipe gets a line every print_freq instead.
        self._bar = Bar(total=total, initial=done, desc=name, disable=None, unit="it")
        self._redirect = logging_redirect_tqdm([LOGGER])

    def __enter__(self) -> Reporter:
        self._redirect.__enter__()
        threading.excepthook = self._on_thread_error
        try:
            if self._use_tensorboard:
                with self._naming_board():
                    folder, first = str(self._folder.tensorboard), self._done + 1
                    self._board = SummaryWriter(folder, purge_step=first)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._redirect.__exit__(kind, error, traceback)
        self._bar.close()
        # What stopped the run says more than that the board cannot be written, either.
        with self._naming_board() if error is None else suppress(OSError):
            try:
                if self._board is not None:
                    self._board.close()
            finally:
                threading.excepthook = self._excepthook

    def _on_thread_error(self, details: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's thread: its writer raises the same error."""
        ours = type(details.thread).__module__.startswith("tensorboard.")
        if not (ours and isinstance(details.exc_value, OSError)):
            self._excepthook(details)

    @contextmanager
    def _naming_board(self) -> Iterator[None]:
        """Context in which TensorBoard's errors get a sentence."""
        try:
            yield
        except OSError as error:
            raise disk_error(self._folder.tensorboard, error, RESUME) from error

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

    def scores(
        self,
        iteration: int,
        name: str,
        scores: Mapping[str, float],
        images: Mapping[str, Mapping[str, float]],
        best: str,
    ) -> None:
        """Report the validation scores of one set, those of its images in the records alone."""
        append_record(
            self._folder.records,
            {
                "kind": "val",
                "iteration": iteration,
                "set": name,
                "scores": dict(scores),
                "images": images,
            },
        )
        line = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items())
        LOGGER.info("%d/%d: %s: %s%s", iteration, self._total, name, line, best)
        for metric, value in scores.items():
            self._scalar(f"metrics/{name}/{metric}", value, iteration)

    def restart_clock(self, iteration: int) -> None:
        """Count seconds a step from here on: what came before was a validation, say.

        Args:
            iteration: the last one that is done.
        """
        self._since, self._done = time.perf_counter(), iteration

    def curves(self) -> None:
        """Draw all records so far."""
        save_run_curves(read_records(self._folder.records), self._folder.curves, self._name)

    def _scalar(self, tag: str, value: float, iteration: int) -> None:
        if self._board is None:
            return
        with self._naming_board():
            self._board.add_scalar(tag, value, iteration)


class _Visible(logging.Formatter):
    """Writes control characters so that no terminal obeys them, nor one that shows the file."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return visible(super().format(record))


class _LogFile(logging.FileHandler):
    """A log whose failure is an error, where logging's own go on and print a traceback a line."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return super().handleError(record)
        # What it could not write would be tried again, and complained of, when Python ends.
        LOGGER.removeHandler(self)
        with suppress(OSError):
            self.close()
        raise disk_error(self.baseFilename, error, RESUME) from error


def log_to(file: Path | None) -> None:
    """Send log lines to the terminal, and everything to ``file`` as well.

    Raises:
        LsfdError: the file cannot be written, now or at a later line.
    """
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    console.setFormatter(_Visible("%(message)s"))
    LOGGER.addHandler(console)
    if file is not None:
        try:
            writer = _LogFile(file, encoding="utf-8")
        except OSError as error:
            raise disk_error(file, error, RESUME) from error
        writer.setFormatter(_Visible("%(asctime)s %(levelname)s: %(message)s"))
        LOGGER.addHandler(writer)
