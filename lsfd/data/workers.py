"""Processes that do not outlive the process that started them.

A process that is killed outright cannot stop those that it started; they have to notice.
"""

from __future__ import annotations

import os
import threading
import time
from multiprocessing import parent_process, util


def end_with_parent() -> None:
    """End this process, which ``multiprocessing`` started, as soon as its parent is gone.

    Killed outright, the parent cannot stop its workers. PyTorch's loader compares the parent's
    number with the one at its own start, too late for a parent that is killed just before.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def end_with_launcher() -> None:
    """End this process, which another program started, within a second of that program's end.

    Training processes whose torchrun was killed outright would go on, unseen, in the folder of the
    run that is started in their place.
    """
    threading.Thread(target=_watch_launcher, args=(os.getppid(),), daemon=True).start()


def end_with_input() -> None:
    """End this process as soon as its standard input ends: a pipe of the program that started it.

    The system closes the pipe when that program ends, in whatever way, and be it before this
    process has come so far as to call this function.
    """
    threading.Thread(target=_wait_for_input, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    # What else would stay is the folder with the socket by which this process hands over tensors.
    util._run_finalizers()  # type: ignore[attr-defined]
    os._exit(1)


def _wait_for_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _watch_launcher(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os._exit(1)
