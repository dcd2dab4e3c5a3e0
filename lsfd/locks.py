"""Locks by which commands keep out of each other's way, on whatever host.

A lock is that of a file, which the system frees when its holder ends, in whatever way: a kill
blocks nobody. The file stays: deleted, it could be under another process's hands, and the next one
would lock a new file of the same name beside it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["FileLock", "Timeout", "acquired", "is_held", "locked"]

LOGGER = logging.getLogger("lsfd")

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems say that have no locks, such as Lustre without ``flock`` and some of NFS."""


def acquired(file: Path, timeout: float = -1) -> FileLock:
    """Return the lock of a file, held by this process.

    A file system without locks gets a warning instead: there nobody is kept out, and the lock's
    ``is_locked`` is false.

    Args:
        file: is made where it is missing; its folder is there.
        timeout: seconds to wait for another holder's end; below 0: as long as it takes.

    Raises:
        Timeout: another process holds it still.
        OSError: the file cannot be made.
    """
    # What it would fall back to is a mark that outlives a killed process.
    lock = FileLock(file, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # A Timeout, too.
            raise
        LOGGER.warning(
            "%s: its file system has no locks (%s): see to it yourself that no second command "
            "works there", file.parent, error.strerror or error,
        )  # fmt: skip
    return lock


def is_held(file: Path) -> bool:
    """Return whether the lock of a file that is there is held, or cannot be tried."""
    try:
        acquired(file, timeout=0).release()
    except OSError:  # A Timeout, too.
        return True
    return False


@contextmanager
def locked(file: Path, timeout: float = -1) -> Iterator[None]:
    """Context in which this process holds the lock of a file; otherwise as :func:`acquired`."""
    lock = acquired(file, timeout)
    try:
        yield
    finally:
        lock.release()
