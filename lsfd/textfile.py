"""Writing a text file so that its name never stands for half of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lsfd.errors import LsfdError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 under ``path``, making its folder; all of it or nothing.

    Raises:
        LsfdError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise LsfdError(f"{path} cannot be written: {error.strerror}") from error
