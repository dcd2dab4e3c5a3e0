"""Standard input and output in the place of image files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lsfd.atomic import scratch_folder
from lsfd.errors import LsfdError

PIPE = Path("-")
"""What stands for standard input, or output, on the command line."""


@contextmanager
def files_for_pipes(
    sources: Sequence[Path], out: Path, extension: str | None
) -> Iterator[tuple[list[Path], Path]]:
    """Lend files for ``-``: standard input is copied into one, and one to standard output.

    Args:
        sources: what is read.
        out: where to.
        extension: of an image on standard output; None: PNG.

    Raises:
        LsfdError: several images are to go to standard output.
    """
    if PIPE not in (*sources, out):
        yield list(sources), out
        return
    if out == PIPE and (len(sources) != 1 or (sources[0] != PIPE and not sources[0].is_file())):
        raise LsfdError("-o -: one image goes to standard output; give one file, or -i -")
    with scratch_folder() as folder:
        given = folder / "stdin.png"  # What it is in truth shows when it is read.
        if PIPE in sources:
            with given.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        result = folder / f"stdout.{(extension or 'png').removeprefix('.')}"
        files = [given if source == PIPE else source for source in sources]
        yield files, result if out == PIPE else out
        if out == PIPE and result.exists():
            with result.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
