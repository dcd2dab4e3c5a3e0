"""A run's folder is in the hands of one process at a time.

The lock is that of a file beside the folder, ``.NAME.in_use``: the folder itself gets another name
when a new run takes its own. The file says who held it last.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lsfd.errors import LsfdError
from lsfd.locks import Timeout, acquired
from lsfd.training.folder import RunFolder

PATIENCE = 5.0
"""Seconds in which a holder may end: processes whose launcher was killed notice within a second."""


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Context in which no other process trains in a run's folder, or gives it another name.

    A file system without locks gets a warning instead: there nobody is kept out.

    Raises:
        LsfdError: another process holds it, on whatever host, or the lock's file cannot be made.
    """
    try:
        folder.lock.parent.mkdir(parents=True, exist_ok=True)
        lock = acquired(folder.lock, PATIENCE)
    except Timeout:
        raise LsfdError(
            f"{folder.root} is in use: {_holder(folder)} trains there; wait for it or stop it, or "
            "give this run another name (--set name=...)"
        ) from None
    except OSError as error:
        raise LsfdError(
            f"the run's folder {folder.root} cannot be made ({error.strerror or error}); "
            "change path.experiments_root"
        ) from error
    try:
        if lock.is_locked:
            with suppress(OSError):  # The lock counts, not the words.
                text = f"process {os.getpid()} on {socket.gethostname()}\n"
                folder.lock.write_text(text, encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(folder: RunFolder) -> str:
    """Return who holds a lock, as far as it is known."""
    try:
        lines = folder.lock.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    return lines[0][:200] if lines and lines[0] else "another process"
