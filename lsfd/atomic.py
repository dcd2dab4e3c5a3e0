"""Writing a file so that its name never stands for half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lsfd.errors import LsfdError

TEMPORARY = ".tmp"
"""How the names of unfinished files end; what a killed process left of them may be deleted."""


@contextmanager
def writing(path: Path, *, durable: bool = False, advice: str = "") -> Iterator[BinaryIO]:
    """Open a new file that takes the name ``path`` when the block ends without an error.

    Until then ``path`` is what it was before. Missing folders are made.

    Args:
        path: final name.
        durable: whether the bytes are on the disk before the name is given, so that a power cut,
            too, leaves the old file or the new one; takes milliseconds.
        advice: what to do if it cannot be written, for the error's end.

    Raises:
        LsfdError: the folder is read-only, the disk is full, or the like.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        end = f"; {advice}" if advice else ""
        raise LsfdError(f"{path} cannot be written: {error.strerror or error}{end}") from error


def write_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file; all of it or nothing. Arguments and errors as in :func:`writing`."""
    with writing(path, durable=durable) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; all of it or nothing. Errors as in :func:`writing`."""
    write_bytes(path, text.encode())
