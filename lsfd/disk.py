"""What to say when a disk fails (full, read-only, over its quota, gone), and making folders so."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from lsfd.errors import LsfdError

AGAIN = "give the same command again"

_GONE = "see to it that the disk or network share is there"

_GONE_NAMES = (
    "ENOENT",  # The folder was there before: what it lay on is not.
    "EIO", "ENODEV", "ENXIO", "ENOTCONN", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH",
    "ETIMEDOUT", "ESHUTDOWN", "ESTALE", "EREMOTEIO",
)  # fmt: skip
_REMEDY_NAMES = {
    "ENOSPC": "free space there",
    "EDQUOT": "free space within the quota",
    "EFBIG": "raise the limit on the size of a file (ulimit -f)",
    "EROFS": "make the disk writable, or choose a folder elsewhere",
    "EACCES": "get the right to it, or choose another place",
    "EPERM": "get the right to it, or choose another place",
    "EMFILE": "raise the limit on open files (ulimit -n)",
    **dict.fromkeys(_GONE_NAMES, _GONE),
}
# Not every system has all of them.
_REMEDIES = {
    getattr(errno, name): remedy for name, remedy in _REMEDY_NAMES.items() if hasattr(errno, name)
}
"""What helps where the next write to the same place would fail as well."""

_NAMES = {
    getattr(errno, name)
    for name in ("ENAMETOOLONG", "EISDIR", "ENOTDIR", "ELOOP", "EEXIST", "EINVAL", "EILSEQ")
    if hasattr(errno, name)
}
"""What is wrong with one name, and always will be."""

_ANOTHER_NAME = "choose another name"


class DiskError(LsfdError):
    """Something cannot be written, and neither can what was to be written after it."""


def disk_error(what: object, error: OSError, then: str = AGAIN) -> LsfdError:
    """Return the sentence about a failed write: what, why, what helps, what to do then.

    Args:
        what: that cannot be written, such as a path.
        error: of the system.
        then: what to do when that is mended.

    Returns:
        A :class:`DiskError` where it is the disk's fault and not that of one name.
    """
    if error.errno in _NAMES:
        return LsfdError(f"{what} cannot be written: {error.strerror}; {_ANOTHER_NAME}")
    remedy = _REMEDIES.get(error.errno or 0)
    advice = then if remedy is None else f"{remedy}, then {then}"
    kind = LsfdError if remedy is None else DiskError
    return kind(f"{what} cannot be written: {error.strerror or error}; {advice}")


def remedy_for(error: OSError) -> str | None:
    """Return what helps against an error of the system, in reading or writing; None: unknown."""
    return _ANOTHER_NAME if error.errno in _NAMES else _REMEDIES.get(error.errno or 0)


def make_folders(folders: Iterable[Path]) -> None:
    """Make folders, and those that they lie in.

    Raises:
        LsfdError: one cannot be made.
    """
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(f"the folder {folder}", error) from error


def error_told(text: str) -> OSError | None:
    """Return the system's error that a library tells of in its own words; None: of none.

    Args:
        text: such as ``wbuffer_write: write failed; unix error: No space left on device``.
    """
    for number in _REMEDIES:
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    return None
