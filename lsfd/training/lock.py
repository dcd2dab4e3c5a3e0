"""A run's folder is in the hands of one process at a time.

The lock is that of a file beside the folder, ``.NAME.in_use``: the folder itself gets another name
when a new run takes its own. The system frees the lock when its holder ends, in whatever way, so
that a killed run blocks nobody. The file stays and says who held it last. Deleted, it could be
under another process's hands, and the next one would lock a new file of the same name beside it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from lsfd.errors import LsfdError
from lsfd.training.folder import RunFolder

LOGGER = logging.getLogger("lsfd")

PATIENCE = 5.0
"""Seconds in which a holder may end: processes whose launcher was killed notice within a second."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems say that have no locks, such as Lustre without ``flock`` and some of NFS."""


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Context in which no other process trains in a run's folder, or gives it another name.

    A file system without locks gets a warning instead: there nobody is kept out.

    Raises:
        LsfdError: another process holds it, on whatever host, or the lock's file cannot be made.
    """
    # Without locks it would mark the folder by a file that outlives a killed process.
    lock = FileLock(folder.lock, fallback_to_soft=False)
    try:
        folder.lock.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise LsfdError(
            f"{folder.root} is in use: {_holder(folder)} trains there; wait for it or stop it, or "
            "give this run another name (--set name=...)"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise LsfdError(
                f"the run's folder {folder.root} cannot be made ({error.strerror or error}); "
                "change path.experiments_root"
            ) from error
        LOGGER.warning(
            "%s: its file system has no locks (%s): see to it yourself that no second command "
            "trains there", folder.root, error.strerror or error,
        )  # fmt: skip
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
