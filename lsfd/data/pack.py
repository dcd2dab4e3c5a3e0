"""Making packed image stores: every image is decoded, cropped, shrunk and written once.

And checking them: whoever has a store knows by its fingerprint that nothing in it has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lsfd.data.pairs import ImagePair, find_pairs
from lsfd.data.store import (
    GT_FILE,
    INDEX_FILE,
    LQ_FILE,
    VERSION,
    Store,
    StoreIndex,
    open_store,
)
from lsfd.disk import disk_error
from lsfd.errors import LsfdError
from lsfd.imaging.degradation import Degradation
from lsfd.locks import locked
from lsfd.terminal import visible

_Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def ensure_store(
    cache_root: Path,
    gt_roots: Sequence[Path],
    lq_root: Path | None,
    scale: int,
    min_size: int = 0,
    degradation: Degradation | None = None,
) -> Store:
    """Return the store of a request from below ``cache_root``, built there where needed.

    The request decides the store's folder; otherwise as ``build_store``.
    """
    roots = [str(root.resolve()) for root in gt_roots]
    request = [roots, str(lq_root.resolve()) if lq_root else None, scale, min_size]
    request += _told(degradation)
    folder = cache_root / f"x{scale}-{_digest(request)[:16]}"
    return build_store(folder, gt_roots, lq_root, scale, min_size, degradation)


def build_store(
    folder: Path,
    gt_roots: Sequence[Path],
    lq_root: Path | None,
    scale: int,
    min_size: int = 0,
    degradation: Degradation | None = None,
) -> Store:
    """Pack the images below ``gt_roots``, with their LR images, into a store in ``folder``.

    A store that is already there is used as it is if it was made by the same request from the
    same files (by name, size, and times of writing and of any change), and otherwise replaced in
    one step. Where several processes ask at once, one builds and the others wait. Needs memory for
    a few images only.

    Args:
        folder: where the store goes.
        gt_roots: folders of HR images; heights and widths are cropped to multiples of ``scale``.
        lq_root: folder of the LR images (see ``find_pairs``); None makes them by MATLAB's
            bicubic.
        scale: HR size over LR size.
        min_size: images whose cropped HR has a side below this many pixels are left out and
            counted.
        degradation: what happens to LR images that are made, beside the bicubic.

    Raises:
        LsfdError: a folder is missing or holds no image, an image is damaged, has no LR image
            or one of the wrong size, every image is below ``min_size``, or the store cannot be
            written.
    """
    pairs = find_pairs(gt_roots, lq_root, scale, degradation)
    source = _source_digest(pairs, scale, min_size)
    if _is_current(folder, source):
        if any(leftover.exists() for leftover in _unfinished(folder)):
            with suppress(OSError), _lock(folder, timeout=0):  # Who holds it does the same.
                _remove_unfinished(folder)
        return open_store(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not _is_current(folder, source):  # Another process may have built it meanwhile.
                _build(folder, pairs, scale, min_size, source)
    except OSError as error:
        raise disk_error(f"the image store {folder}", error) from error
    return open_store(folder)


def verify_store(folder: Path) -> Store:
    """Read all of a store, compare it with its fingerprint, and return it.

    Raises:
        LsfdError: there is no store in ``folder``, it is damaged, or it was changed.
    """
    store = open_store(folder)
    if not _has_its_fingerprint(store):
        raise LsfdError(
            f"the image store {folder} is not what was packed: its content does not have its "
            "fingerprint; delete the folder and it is built again from the images"
        )
    return store


def _has_its_fingerprint(store: Store) -> bool:
    """Read all of a store, and tell whether it is what was packed."""
    content = hashlib.sha256()
    what = f"checking {visible(store.folder.name)}"
    for number in tqdm(range(len(store)), what, unit="image", disable=None):
        content.update(store.gt(number).data)
        content.update(store.lq(number).data)
    return _fingerprint(content, store.scale, store.names, store.shapes) == store.fingerprint


def _build(folder: Path, pairs: list[ImagePair], scale: int, min_size: int, source: str) -> None:
    """Write the store beside ``folder``, then put it in place; the caller holds the lock."""
    _remove_unfinished(folder)
    new, old = _unfinished(folder)
    new.mkdir()
    try:
        _write(new, pairs, scale, min_size, source)
        if _holds_same(folder, new):
            # Images that were touched or moved, but not changed: who reads the store is left alone.
            os.replace(new / INDEX_FILE, folder / INDEX_FILE)
            return
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        _remove_unfinished(folder)


def _lock(folder: Path, timeout: float = -1) -> AbstractContextManager[None]:
    """Return a context in which this process alone packs a store."""
    return locked(folder.parent / f".{folder.name}.lock", timeout)


def _unfinished(folder: Path) -> tuple[Path, Path]:
    """Return where a store is made, and where the one before it lies while it is replaced."""
    return folder.parent / f".{folder.name}.new", folder.parent / f".{folder.name}.old"


def _remove_unfinished(folder: Path) -> None:
    """Delete what this process, or one that was killed, left; the caller holds the lock."""
    for leftover in _unfinished(folder):
        shutil.rmtree(leftover, ignore_errors=True)


def _holds_same(folder: Path, new: Path) -> bool:
    """Tell whether there is a store in ``folder``, undamaged, with the content of ``new``'s."""
    try:
        old = open_store(folder)
        return old.fingerprint == open_store(new).fingerprint and _has_its_fingerprint(old)
    except LsfdError:
        return False


def _write(folder: Path, pairs: list[ImagePair], scale: int, min_size: int, source: str) -> None:
    """Stream all pairs into the two pixel files, then write the index that describes them."""
    names: list[str] = []
    shapes: list[tuple[int, int]] = []
    content = hashlib.sha256()
    progress = tqdm(pairs, desc="packing images", unit="image", disable=None)
    with (folder / GT_FILE).open("wb") as gt_file, (folder / LQ_FILE).open("wb") as lq_file:
        for pair, (gt, lq) in zip(progress, _read_ahead(pairs, scale), strict=True):
            if min(gt.shape[:2]) < min_size:
                continue
            names.append(pair.name)
            shapes.append((gt.shape[0], gt.shape[1]))
            for file, image in ((gt_file, gt), (lq_file, lq)):
                pixels = np.ascontiguousarray(image).data
                file.write(pixels)
                content.update(pixels)
    if not names:
        raise LsfdError(
            f"all {len(pairs)} images have a side below {min_size} pixels; use larger images or "
            "a smaller datasets.train.gt_size"
        )
    StoreIndex(
        version=VERSION,
        scale=scale,
        names=names,
        shapes=shapes,
        lq_origin=_lq_origin(pairs[0]),
        left_out=len(pairs) - len(names),
        source=source,
        fingerprint=_fingerprint(content, scale, names, shapes),
    ).save(folder)


def _fingerprint(
    pixels: hashlib._Hash, scale: int, names: list[str], shapes: list[tuple[int, int]]
) -> str:
    """Return a store's fingerprint; ``pixels`` has been fed each HR image with its LR image."""
    content = pixels.copy()
    content.update(_digest([scale, names, shapes]).encode())
    return content.hexdigest()


def _lq_origin(pair: ImagePair) -> str:
    if pair.lq is not None:
        return "files"
    return "MATLAB bicubic" if pair.degradation is None else f"MATLAB bicubic, {pair.degradation}"


def _read_ahead(pairs: list[ImagePair], scale: int) -> Iterator[_Images]:
    """Yield the images of the pairs in order, read by threads that stay a few pairs ahead.

    Threads, not processes: OpenCV and NumPy let go of Python's lock where the time is spent, and
    no pixel has to be copied from one process to another.
    """
    workers = min(os.cpu_count() or 1, 16)
    waiting: deque[Future[_Images]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for pair in pairs:
            waiting.append(pool.submit(pair.read, scale))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _source_digest(pairs: list[ImagePair], scale: int, min_size: int) -> str:
    """Digest all that decides what a store will hold, without opening an image."""
    files = []
    for pair in pairs:
        for path in (pair.gt, pair.lq):
            if path is not None:
                status = _status(path)
                # The time of the last change of any kind, too: who copies a file in another's place
                # may give it the other's size and time of writing, but not this one.
                times = (status.st_mtime_ns, status.st_ctime_ns)
                files.append((pair.name, path.name, status.st_size, *times))
    return _digest([VERSION, scale, min_size, files, *_told(pairs[0].degradation)])


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise LsfdError(f"cannot read the image {path}: {error.strerror}") from error


def _told(degradation: Degradation | None) -> list[Any]:
    """Return what a digest is told of a degradation; without one nothing, as ever."""
    return [] if degradation is None else [asdict(degradation)]


def _is_current(folder: Path, source: str) -> bool:
    """Tell whether ``folder`` holds a whole store that was made from exactly this source."""
    if not (folder / INDEX_FILE).exists():
        return False
    try:
        return open_store(folder).index.source == source
    except LsfdError:
        return False  # Damaged, or of another version: build it again.


def _digest(value: object) -> str:
    """Return the SHA-256 of a value's JSON text, in hexadecimal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
