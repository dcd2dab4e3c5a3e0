"""Upscaling image files: one, or whole folder trees."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Semaphore
from types import TracebackType
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lsfd.atomic import remove_leftovers
from lsfd.disk import DiskError, make_folders
from lsfd.errors import LsfdError
from lsfd.imaging.picture import Picture, read_picture
from lsfd.imaging.picture_files import format_of, write_picture
from lsfd.imaging.raster import Raster
from lsfd.imaging.target_size import TargetSize
from lsfd.inference.naming import plan
from lsfd.inference.room import Room
from lsfd.shard import Shard
from lsfd.terminal import visible

_IN_FLIGHT = 256 << 20
"""Bytes of results that wait to be written; of one image it may be more."""

_MOST_BESIDE = 8
"""Images that are read or written while others are enlarged."""

_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total_fmt} images [{elapsed}<{remaining}{postfix}]"
)


class Enlarger(Protocol):
    """What :class:`~lsfd.inference.upscaler.Upscaler` is here."""

    scale: int
    at_once: int

    def expect(self, images: int) -> None:
        """Note how many images are to come; ``at_once``, how many threads may call, may change."""

    def enlarge(
        self, source: Raster, target: Raster, progress: Callable[[float], None] | None = None
    ) -> None:
        """Fill ``target`` with ``source`` made ``scale`` times as large."""


@dataclass
class FolderReport:
    """What became of the files.

    Attributes:
        done: images written.
        kept: outputs of an earlier run left as they were (only with ``resume``).
        skipped: files whose names say that they are no images.
        failed: images that could not be read, upscaled or written, each with the reason.
        shard: which share of the files it tells of; None: of all.
    """

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    shard: Shard | None = None

    def __str__(self) -> str:
        counts = [f"{len(self.done)} upscaled"]
        if self.kept:
            counts.append(f"{len(self.kept)} kept from an earlier run")
        if self.skipped:
            counts.append(f"{len(self.skipped)} skipped")
        if self.failed:
            counts.append(f"{len(self.failed)} failed")
        lines = [f"  {path}: skipped, not an image" for path in self.skipped]
        lines += [f"  {path}: failed, {reason}" for path, reason in self.failed.items()]
        share = f"shard {self.shard}: " if self.shard else ""
        return "\n".join([share + ", ".join(counts), *lines])


def upscale_path(
    source: Path | Sequence[Path],
    out: Path,
    enlarger: Enlarger,
    suffix: str = "",
    extension: str | None = None,
    resume: bool = False,
    size: TargetSize | None = None,
    shard: Shard | None = None,
) -> FolderReport:
    """Upscale an image, or all images of a folder tree or a pattern.

    While the network runs on some images, others are read and written. Every
    output is written atomically. A file that cannot be used is named in the report and does not
    stop the others; what is no image by its name (a text among the photographs) is no failure.
    Hidden files are left alone.

    Args:
        source: one or several, see :func:`~lsfd.inference.naming.plan`.
        out: as there.
        enlarger: does the work.
        suffix: as there.
        extension: as there.
        resume: keep outputs that exist instead of writing them anew.
        size: what to shrink the enlarged images to; None: nothing.
        shard: upscale only this share of the images, of which other processes take the others;
            which images it holds does not depend on what has been written already.

    Raises:
        LsfdError: the source does not exist or has no image, two inputs would be written to one
            file, or an output would replace an input.
    """
    planned = plan([source] if isinstance(source, Path) else source, out, suffix, extension)
    report = FolderReport(skipped=planned.skipped, shard=shard)
    jobs = dict(planned.outputs)
    if shard is not None:
        jobs = dict(shard.take(sorted(jobs.items())))
        report.skipped = shard.take(sorted(planned.skipped))
    make_folders({target.parent for target in jobs.values()})
    if resume:
        report.kept = [target for target in jobs.values() if target.exists()]
        for target in report.kept:
            remove_leftovers(target)
        jobs = {image: target for image, target in jobs.items() if not target.exists()}
    _run(jobs, enlarger, size, report)
    return report


def _run(
    jobs: Mapping[Path, Path], enlarger: Enlarger, size: TargetSize | None, report: FolderReport
) -> None:
    """Upscale images, several at a time: while some are enlarged, others are read and written."""
    enlarger.expect(len(jobs))
    turns = Semaphore(enlarger.at_once)
    room = Room(_IN_FLIGHT)
    beside = min(os.cpu_count() or 1, _MOST_BESIDE)

    def upscale(image: Path, target: Path) -> None:
        with progress.image(visible(image.name)) as part:
            given = read_picture(image, target.parent)
            height, width, bands = given.raster.shape
            part.pixels = height * width * enlarger.scale**2
            final = None if size is None else size.of(width, height, enlarger.scale)
            with room.taken(part.pixels * bands):
                with turns:
                    enlarged = _enlarged(given, target, enlarger, part.tell)
                _write(target, enlarged, final)

    with (
        _Progress(len(jobs)) as progress,
        ThreadPoolExecutor(enlarger.at_once + beside, "upscale") as pool,
    ):
        results = [
            (image, target, pool.submit(upscale, image, target)) for image, target in jobs.items()
        ]
        try:
            for image, target, result in results:
                with _noting(image, report):
                    result.result()
                    report.done.append(target)
        except BaseException:  # Ctrl-C, too: what has begun ends with the next tile.
            pool.shutdown(wait=False, cancel_futures=True)
            progress.stop()
            raise


def _enlarged(
    given: Picture, target: Path, enlarger: Enlarger, progress: Callable[[float], None]
) -> Picture:
    """Return a picture enlarged; that which was given is closed."""
    source = given.raster
    try:
        height, width, bands = source.shape
        shape = (height * enlarger.scale, width * enlarger.scale, bands)
        dtype = source.dtype if format_of(target).deep else np.uint8
        raster = Raster(shape, dtype, target.parent)
        try:
            enlarger.enlarge(source, raster, progress)
        except BaseException:  # Its traceback holds the raster until the folder is done.
            raster.close()
            raise
    finally:
        source.close()
    return Picture(raster, given.metadata, given.resolution)


def _write(target: Path, picture: Picture, size: tuple[int, int] | None) -> None:
    try:
        write_picture(target, picture, size)
    finally:
        picture.raster.close()


@contextmanager
def _noting(image: Path, report: FolderReport) -> Iterator[None]:
    """Put what goes wrong with an image into the report."""
    try:
        yield
    except DiskError:  # The next image would not fare better.
        raise
    except LsfdError as error:
        report.failed[image] = str(error)
    except MemoryError:
        report.failed[image] = "the memory does not suffice for it"


class _Progress:
    """A bar that counts images, in parts of one for large ones, and shows megapixels a second."""

    def __init__(self, images: int) -> None:
        self._bar = tqdm(total=images, desc="upscale", bar_format=_BAR, disable=None)
        self._start = time.perf_counter()
        self._lock = Lock()
        self._pixels = 0.0
        self._stopped = False

    def __enter__(self) -> _Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.close()

    @contextmanager
    def image(self, name: str) -> Iterator[_Part]:
        """Count an image, which is done in the end, or cannot be."""
        part = _Part(name, self)
        try:
            yield part
        finally:
            part.tell(1)

    def stop(self) -> None:
        """Let every thread that tells of progress end there."""
        self._stopped = True

    def add(self, share: float, pixels: float, name: str) -> None:
        """Say that so much more of an image is done; ``pixels`` of its result.

        Raises:
            CancelledError: there is nothing more to do.
        """
        if self._stopped:
            raise CancelledError
        with self._lock:
            self._pixels += pixels
            speed = self._pixels / 1e6 / max(time.perf_counter() - self._start, 1e-9)
            self._bar.set_postfix_str(f"{speed:.2f} megapixels/s, {name}", refresh=False)
            self._bar.update(share)


class _Part:
    """How far one image is.

    Attributes:
        pixels: of the result; 0 until they are known.
    """

    def __init__(self, name: str, progress: _Progress) -> None:
        self.pixels = 0
        self._name, self._progress = name, progress
        self._share = 0.0

    def tell(self, share: float) -> None:
        """Say how much of it is done, 0 to 1."""
        more = share - self._share
        self._share = share
        self._progress.add(more, more * self.pixels, self._name)
