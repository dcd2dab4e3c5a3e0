"""Downloading public sets: resumed where it broke off, used only when the checksum is right."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import requests
from tqdm import tqdm

from lsfd.data.archives import extract
from lsfd.data.catalogue import CATALOGUE
from lsfd.errors import LsfdError, nearest
from lsfd.imaging.files import find_images
from lsfd.locks import Timeout, locked

_ATTEMPTS = 4  # in a row, none of which brought the file further
_PAUSE_S = 1.0  # before the second attempt, doubled before each further one
_TIMEOUT_S = 30.0  # without a single byte
_CHUNK_BYTES = 1 << 16


def fetch_set(name: str, root: Path, progress: bool = True) -> Path:
    """Download a set of the catalogue and unpack its high-resolution images.

    The archive stays in ``ROOT/archives``: one archive holds several sets, and an archive put
    there by hand is used instead of a download. What is there already is not fetched again.

    Args:
        name: a name of ``lsfd.data.catalogue.CATALOGUE``.
        root: the folder of all sets.
        progress: show a progress bar, when standard error is a terminal.

    Returns:
        The folder of the images, ``ROOT/NAME/HR``.

    Raises:
        LsfdError: unknown name, or whatever ``download`` and ``extract`` raise.
    """
    if name not in CATALOGUE:
        raise LsfdError(f"no public set is called '{name}'{nearest(name, CATALOGUE)}")
    entry = CATALOGUE[name]
    folder = root / name / "HR"
    if folder.is_dir() and find_images(folder):
        return folder
    archive = root / "archives" / entry.archive.url.rsplit("/", 1)[1]
    of = entry.archive
    download(of.url, archive, of.checksum, of.size, progress)
    extract(archive, folder, inside=entry.folder)
    return folder


def download(
    url: str, path: Path, checksum: str, size: int | None = None, progress: bool = True
) -> None:
    """Download a file; what arrived of it is kept in ``PATH.part`` and gone on with next time.

    A file that is at ``path`` already, and right, is not downloaded again.

    Args:
        url: http or https address.
        path: where the file goes, in one step, once its checksum has been verified.
        checksum: ``"sha256:<hex>"`` or another algorithm of ``hashlib`` (``"md5:<hex>"``).
        size: bytes that it has; an answer that goes on beyond them is cut off. None: unknown.
        progress: show a progress bar, when standard error is a terminal.

    Raises:
        LsfdError: no connection or a refusal of the server, after several attempts; the wrong
            checksum (a wrong download is removed, a file found at ``path`` is not); the file
            cannot be written; another process is downloading it.
    """
    by_hand = f"try again later, or put the file at {path} by hand"
    try:
        if path.exists():
            found = _checksum(path, checksum)
            if found != checksum:
                raise LsfdError(
                    f"{path} is not the file that was published as {url}: its checksum is "
                    f"{found}, not {checksum}; remove it"
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        # Two processes that write one part would spoil it, at worst behind the checksum's back.
        with locked(path.with_name(f".{path.name}.lock"), timeout=0):
            _fetch(url, part, size, progress)
            found = _checksum(part, checksum)
            if found != checksum:
                part.unlink()
                raise LsfdError(
                    f"what came from {url} is not the file that was published: its checksum is "
                    f"{found}, not {checksum}; it was removed; {by_hand}"
                )
            os.replace(part, path)
    except Timeout as error:
        raise LsfdError(f"another process is downloading {path}; wait for it to end") from error
    except requests.RequestException as error:
        raise LsfdError(f"cannot download {url}: {_reason(error)}; {by_hand}") from error
    except OSError as error:
        raise LsfdError(f"cannot download {url} to {path}: {error}") from error


def _fetch(url: str, part: Path, size: int | None, progress: bool) -> None:
    """Bring ``part`` to its end, with pauses between attempts that fail."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _stream(url, part, size, progress)
        except requests.RequestException as error:
            further = _size(part) > furthest
            failures, furthest = (1 if further else failures + 1), max(_size(part), furthest)
            if failures == _ATTEMPTS or not _may_pass(error):
                raise
            time.sleep(_PAUSE_S * 2 ** (failures - 1))


def _stream(url: str, part: Path, size: int | None, progress: bool) -> None:
    """Append to ``part`` what the server still has, or start anew where it cannot resume."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not of a compressed one
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status_code == 206 and content_range.startswith(f"bytes {have}-")
        if have and response.status_code in (206, 416) and not resumed:
            if content_range == f"bytes */{have}":
                return  # the part is whole: it was left between the last byte and the renaming
            part.unlink()
            return _stream(url, part, size, progress)
        response.raise_for_status()
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        # A server may say anything.
        total = start + int(length) if length and length.isdecimal() else None
        bar = tqdm(
            desc=part.stem,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            disable=None if progress else True,
        )
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
                if size is not None and file.tell() > size:
                    return  # It may never end. The checksum will tell that it is wrong.
    # Older versions of urllib3 take a connection that ends too early for the end of the file.
    if total is not None and _size(part) < total:
        raise requests.ConnectionError(f"it ended after {_size(part)} of {total} bytes")


def _may_pass(error: requests.RequestException) -> bool:
    """Whether another attempt can help: not for a malformed address, nor for 404 and its kin."""
    if isinstance(error, ValueError):
        return False
    status = error.response.status_code if error.response is not None else 0
    return not 400 <= status < 500 or status in (408, 429)


def _reason(error: requests.RequestException) -> str:
    """Say in a few words what requests says in several lines."""
    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"the server did not answer within {_TIMEOUT_S:g} s"
    if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return "there is no connection to the server, or it keeps breaking off"
    return str(error)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _checksum(path: Path, like: str) -> str:
    """Return the checksum of a file by the algorithm of ``like``, written as it is."""
    algorithm = like.partition(":")[0]
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{algorithm}:{digest.hexdigest()}"
