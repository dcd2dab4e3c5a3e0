"""Runs of a comparison, each in a process of its own, under one progress bar."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType

from lsfd.disk import disk_error
from lsfd.errors import LsfdError
from lsfd.locks import FileLock, Timeout, acquired
from lsfd.training.bar import Bar
from lsfd.training.planned import PlannedRun

POLL_SECONDS = 0.5
LAST_WORDS = 300
"""Characters of a failed run's output that its error repeats."""


@dataclass
class _Running:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    lock: FileLock


class _StopOnSignal:
    """Context in which SIGINT and SIGTERM are noted, so that the runs can save and leave first."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> _StopOnSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def train_all(runs: Sequence[PlannedRun], jobs: int = 1) -> int:
    """Train every run that is not finished; each goes on where it was stopped.

    A run that another process has in its hands is left to it.

    Args:
        runs: in the order in which they start.
        jobs: how many train at once; they share the processor's cores.

    Returns:
        0, or the number of the signal that stopped it: the same call goes on.

    Raises:
        LsfdError: runs failed, or another process still trains them; the others have been trained.
    """
    for run in runs:
        run.write_options()
    waiting = [run for run in runs if not run.is_finished()]
    running: list[_Running] = []
    failed: list[PlannedRun] = []
    elsewhere: list[PlannedRun] = []
    total = sum(run.iterations for run in runs)
    # A terminal shows the bar; a file or pipe gets a line for each finished run instead.
    bar = Bar(total=total, unit="it", desc="compare", disable=None)
    with _StopOnSignal() as stop, bar:
        _show(bar, runs, running)
        while (waiting or running) and not stop.received:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                started = _start(run, jobs)
                if started is None:
                    elsewhere.append(run)
                else:
                    running.append(started)
            time.sleep(POLL_SECONDS)
            for done in [item for item in running if item.process.poll() is not None]:
                running.remove(done)
                done.lock.release()
                name = done.run.folder.root.name
                if done.process.returncode or not done.run.is_finished():
                    failed.append(done.run)
                    bar.write(f"{name}: failed, see {done.run.output}")
                else:
                    bar.write(f"{name}: trained, {len(waiting) + len(running)} to go")
            _show(bar, runs, running)
        for item in running:  # Each saves a checkpoint and leaves.
            item.process.terminate()
        for item in running:
            item.process.wait()
            item.lock.release()
    elsewhere = [run for run in elsewhere if not run.is_finished()]
    if failed and not stop.received:
        raise LsfdError(_failure(failed))
    if elsewhere and not stop.received:
        raise LsfdError(
            f"another process trains {', '.join(run.folder.root.name for run in elsewhere)}; wait "
            "for it, then give the same command"
        )
    return stop.received


def _start(run: PlannedRun, jobs: int) -> _Running | None:
    """Start a run; None: another process trains it, or has finished it meanwhile."""
    try:
        run.lock.parent.stat()  # Locking would make the folder where a disk that has gone was.
        lock = acquired(run.lock, timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise disk_error(run.lock, error) from error
    if run.is_finished():
        lock.release()
        return None
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    command = [sys.executable, "-m", "lsfd", "train", "-opt", str(run.option_file)]
    try:
        with run.output.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--auto_resume", "--end_with_input"],
                stdin=subprocess.PIPE,  # Nothing is written to it; killed, this process closes it.
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": threads, **os.environ},
                start_new_session=True,  # Ctrl-C is for this process, which tells the runs.
            )
    except OSError as error:
        raise disk_error(run.output, error) from error
    return _Running(run, process, lock)


def _show(bar: Bar, runs: Iterable[PlannedRun], running: Sequence[_Running]) -> None:
    bar.n = sum(run.iterations_done() for run in runs)
    bar.set_postfix_str(", ".join(item.run.folder.root.name for item in running), refresh=True)


def _failure(failed: Sequence[PlannedRun]) -> str:
    first = failed[0]
    try:
        words = first.output.read_text(encoding="utf-8", errors="replace").split()
    except OSError as error:
        words = [f"cannot be read: {error.strerror}"]
    names = ", ".join(run.folder.root.name for run in failed)
    return (
        f"{len(failed)} run(s) failed: {names}; the first one's last words: "
        f"...{' '.join(words)[-LAST_WORDS:]} ({first.output}); mend it and give the same command"
    )
