"""Unpacking archives from strangers: nothing is written outside the folder asked for."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from lsfd.atomic import working_folder
from lsfd.errors import LsfdError

if TYPE_CHECKING:
    from typing_extensions import Self

# Images hardly shrink when packed: an archive that unpacks to far more than its own size, or to
# this many entries, is made to fill the disk.
_MAX_GROWTH = 20
_SMALL = 1 << 20
_MAX_ENTRIES = 100_000
_MAX_BEHIND = 64  # times _SMALL bytes
_MAX_HEADER = 1 << 20
_DESCRIPTIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Kinds of tar entries that tell of others, and are read into memory."""

# What the standard library raises for damaged, encrypted and exotic archives.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    IndexError,
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
        with working_folder(folder) as work:
            # A folder of its own inside: the temporary one is private, this one is not.
            unpacked = work / "unpacked"
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
    if _is_tar(archive):
        return _tar_entries(archive)
    if zipfile.is_zipfile(archive):
        return _zip_entries(archive)
    raise LsfdError(f"{archive} is neither a zip nor a tar archive, or is damaged")


class _TarHeader(tarfile.TarInfo):
    """Refuses to read a huge description of an entry: packed, it may be of any size."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        """Make one of a block of an archive."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _DESCRIPTIONS and header.size > _MAX_HEADER:
            raise tarfile.StreamError(f"a description of an entry claims {header.size} bytes")
        return header


def _is_tar(archive: Path) -> bool:
    try:
        with tarfile.open(archive, tarinfo=_TarHeader):
            return True
    except tarfile.TarError:
        return False


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive, tarinfo=_TarHeader) as tar:
        for member in tar:

            def open_member(member: tarfile.TarInfo = member) -> IO[bytes]:
                return cast("IO[bytes]", tar.extractfile(member))  # not None for a file

            yield _Entry(member.name, member.size, member.isdir(), member.isreg(), open_member)
        _read_to_end(cast("IO[bytes]", tar.fileobj))


def _read_to_end(file: IO[bytes]) -> None:
    """Read what is behind the last entry: there stands the checksum of a packed archive."""
    for _ in range(_MAX_BEHIND):
        if not file.read(_SMALL):
            return
    raise tarfile.ReadError("there is far too much behind its end")


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            # Archives made on Unix keep the file's mode here; others have zero.
            kind = stat.S_IFMT(info.external_attr >> 16)

            def open_member(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return packed.open(info)

            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            yield _Entry(info.filename, info.file_size, info.is_dir(), is_file, open_member)
