"""Writing a file so that its name never stands for half of it.

Until it is whole, a file is called ``.NAME.0.tmp``, beside its place (``.1`` if a second process
writes it at the same time). Its writer holds it locked; the system frees the lock when the writer
ends, in whatever way. What is there and not locked was left by a process that was killed, and goes
when the file is written again. Folders that are filled step by step are kept in the same way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from lsfd.disk import AGAIN, disk_error
from lsfd.errors import LsfdError

try:
    import fcntl
except ImportError:  # On Windows nobody can tell what is being written; there it stays.
    fcntl = None  # type: ignore[assignment]

_MOST_LOST = 10
"""Times that a file is created, and gone before it is locked."""

TEMPORARY = ".tmp"
"""How the names of unfinished files end; what a killed process left of them may be deleted."""


@contextmanager
def writing(
    path: Path, *, durable: bool = False, advice: str = AGAIN, make_folder: bool = True
) -> Iterator[BinaryIO]:
    """Open a new file that takes the name ``path`` when the block ends without an error.

    Until then ``path`` is what it was before.

    Args:
        path: final name.
        durable: whether the bytes are on the disk before the name is given, so that a power cut,
            too, leaves the old file or the new one; takes milliseconds.
        advice: for the error's end: what to do when the disk is mended.
        make_folder: whether missing folders are made. A folder that this command has made before
            is not missing: its disk has gone, and another one must not take its place.

    Raises:
        LsfdError: ``path`` has no name, the folder is read-only, the disk is full, or the like.
    """
    if not path.name:
        raise LsfdError(f"{path} is no name of a file; choose another one")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path, _create_file) as temporary:
            # Closing it tells of errors, too, so that it comes before the new name.
            with temporary.open("wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise disk_error(path, error, advice) from error


def write_bytes(
    path: Path, data: bytes, *, durable: bool = False, make_folder: bool = True
) -> None:
    """Write a file; all of it or nothing. Arguments and errors as in :func:`writing`."""
    with writing(path, durable=durable, make_folder=make_folder) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; all of it or nothing. Errors as in :func:`writing`."""
    write_bytes(path, text.encode())


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Lend an empty folder beside ``path``, private to this user, in which ``path`` can be made.

    It goes at the end, and whatever is still in it; that of a killed process goes when the next
    one asks for the same ``path``.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _unfinished(path, _create_folder) as folder:
        yield folder


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Lend an empty folder as :func:`working_folder` does, where the system has such files."""
    with working_folder(Path(tempfile.gettempdir()) / "lsfd") as folder:
        yield folder


def remove_leftovers(path: Path, first: int = 0) -> None:
    """Delete what killed processes left of ``path``; what a living one is writing stays.

    Args:
        path: final name.
        first: number of the unfinished file to begin with.
    """
    for number in count(first):
        temporary = _temporary(path, number)
        if not os.path.lexists(temporary):
            return
        _remove_if_left(temporary)


def _temporary(path: Path, number: int) -> Path:
    return path.with_name(f".{path.name}.{number}{TEMPORARY}")


@contextmanager
def _unfinished(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """Create something under a name beside ``path`` and hold it locked; nothing of it stays."""
    temporary, handle = _claimed(path, create)
    try:
        yield temporary
    finally:
        with suppress(OSError):  # A disk that has just failed may refuse this, too.
            # It may have its final name by now, and the other belong to another process.
            if handle is None or _is_at(temporary, handle):
                _remove(temporary)
        if handle is not None:
            os.close(handle)


def _claimed(path: Path, create: Callable[[Path], None]) -> tuple[Path, int | None]:
    """Create something under the first name that is free; return the name and the lock."""
    number = 0
    lost: list[Path] = []
    while True:
        temporary = _temporary(path, number)
        _remove_if_left(temporary)
        try:
            create(temporary)
        except FileExistsError:
            number += 1
            continue
        if fcntl is None:
            return temporary, None
        with suppress(FileNotFoundError):  # As below.
            handle = _opened(temporary)
            with suppress(OSError):  # A file system without locks.
                _lock(handle, wait=True)
            if _is_at(temporary, handle):
                remove_leftovers(path, number + 1)
                return temporary, handle
            os.close(handle)
        # Another process took it for a leftover before it was locked. Where that seems to happen
        # again and again, files have no numbers that last, as on some network shares.
        lost.append(temporary)
        if len(lost) == _MOST_LOST:
            for other in set(lost) - {temporary}:
                _remove(other)
            return temporary, None


def _create_file(path: Path) -> None:
    path.open("xb").close()


def _create_folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def _opened(path: Path) -> int:
    """Open a file or folder for locking; neither a link is followed nor a pipe waited for."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, os.O_RDWR | flags)  # Some network shares lock only what is writable.
    except IsADirectoryError:
        return os.open(path, os.O_RDONLY | flags)


def _lock(handle: int, *, wait: bool) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _is_at(path: Path, handle: int) -> bool:
    """Return whether a name still stands for what was opened under it."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _remove_if_left(temporary: Path) -> None:
    """Delete something unfinished of this user that no process holds; otherwise do nothing."""
    if fcntl is None:
        return
    try:
        handle = _opened(temporary)
    except OSError:  # There is none, as a rule.
        return
    try:
        _lock(handle, wait=False)
        if os.fstat(handle).st_uid == os.geteuid() and _is_at(temporary, handle):
            _remove(temporary)
    except OSError:  # It is being written, or cannot be removed, or there are no locks.
        pass
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
