"""Unpacking archives from strangers: nothing is written outside the folder asked for."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple, cast

from lsfd.errors import LsfdError

# Images hardly shrink when packed: an archive that unpacks to far more than its own size, or to
# this many entries, is made to fill the disk.
_MAX_GROWTH = 20
_SMALL = 1 << 20
_MAX_ENTRIES = 100_000

# What the standard library raises for damaged, encrypted and exotic archives.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)


class _Entry(NamedTuple):
    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


def extract(archive: Path, folder: Path, inside: str = "") -> None:
    """Unpack a zip or tar archive (tar also gzip, bzip2 or xz) into a new folder.

    The folder appears in one step when everything has been unpacked, or not at all.

    Args:
        archive: the archive file.
        folder: where to unpack; it must not exist, or be empty.
        inside: a folder inside the archive, ``/`` between its parts: only the files below it
            are unpacked, without this prefix.

    Raises:
        LsfdError: no such archive, neither zip nor tar, damaged, encrypted, no file below
            ``inside``, an entry that points outside the folder or is neither file nor folder
            (a link, a device), a bomb, or ``folder`` cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LsfdError(f"cannot unpack {archive} into {folder}: it exists already; remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            # A folder of its own inside: the temporary one is private, this one is not.
            unpacked = Path(work) / "unpacked"
            unpacked.mkdir()
            if not _unpack(archive, unpacked, PureWindowsPath(inside).parts):
                raise LsfdError(f"the archive {archive} holds no file below '{inside or '.'}'")
            os.replace(unpacked, folder)
    except _BROKEN as error:
        raise LsfdError(f"cannot unpack {archive}: {error}; fetch the archive again") from error
    except OSError as error:
        raise LsfdError(f"cannot unpack {archive} into {folder}: {error}") from error


def _unpack(archive: Path, target: Path, prefix: tuple[str, ...]) -> int:
    """Write the files below ``prefix`` into ``target``; return how many they are."""
    limit = max(_SMALL, archive.stat().st_size) * _MAX_GROWTH
    unpacked = files = 0
    for count, entry in enumerate(_entries(archive), start=1):
        parts = _safe_parts(archive, entry)
        unpacked += entry.size
        if unpacked > limit or count > _MAX_ENTRIES:
            raise LsfdError(
                f"the archive {archive} unpacks to more than {limit} bytes or {_MAX_ENTRIES} "
                "entries, far more than images would; it was not unpacked"
            )
        if entry.is_folder or parts[: len(prefix)] != prefix:
            continue
        path = target.joinpath(*parts[len(prefix) :])
        path.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
        files += 1
    return files


def _safe_parts(archive: Path, entry: _Entry) -> tuple[str, ...]:
    """Return the parts of an entry's name, after refusing what could write elsewhere."""
    # Windows' rules cover both worlds: either slash separates, drives are seen.
    name = PureWindowsPath(entry.name)
    if name.anchor or ".." in name.parts:
        raise LsfdError(
            f"the archive {archive} is not safe: the entry '{entry.name}' points outside the "
            "folder; it was not unpacked"
        )
    if not (entry.is_file or entry.is_folder):
        raise LsfdError(
            f"the archive {archive} is not safe: the entry '{entry.name}' is a link or a device; "
            "it was not unpacked"
        )
    return name.parts


def _entries(archive: Path) -> Iterator[_Entry]:
    """Go through the entries of an archive, in its order."""
    # Tar first: a tar that ends with a zip file is taken for a zip by zipfile.
    if tarfile.is_tarfile(archive):
        return _tar_entries(archive)
    if zipfile.is_zipfile(archive):
        return _zip_entries(archive)
    raise LsfdError(f"{archive} is neither a zip nor a tar archive, or is damaged")


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive) as tar:
        for member in tar:

            def open_member(member: tarfile.TarInfo = member) -> IO[bytes]:
                return cast("IO[bytes]", tar.extractfile(member))  # not None for a file

            yield _Entry(member.name, member.size, member.isdir(), member.isreg(), open_member)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            # Archives made on Unix keep the file's mode here; others have zero.
            kind = stat.S_IFMT(info.external_attr >> 16)

            def open_member(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return packed.open(info)

            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            yield _Entry(info.filename, info.file_size, info.is_dir(), is_file, open_member)
