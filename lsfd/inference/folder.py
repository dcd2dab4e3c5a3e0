"""Upscaling image files: one, or whole folder trees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lsfd.errors import LsfdError
from lsfd.imaging.picture import Picture, read_picture
from lsfd.imaging.picture_files import format_of, write_picture
from lsfd.imaging.raster import Raster
from lsfd.imaging.target_size import TargetSize
from lsfd.inference.naming import plan

_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total_fmt} images [{elapsed}<{remaining}{postfix}]"
)


class Enlarger(Protocol):
    """What :class:`~lsfd.inference.upscaler.Upscaler` is here."""

    scale: int

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
    """

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

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
        return "\n".join([", ".join(counts), *lines])


def upscale_path(
    source: Path | Sequence[Path],
    out: Path,
    enlarger: Enlarger,
    suffix: str = "",
    extension: str | None = None,
    resume: bool = False,
    size: TargetSize | None = None,
) -> FolderReport:
    """Upscale an image, or all images of a folder tree or a pattern.

    While the network runs on one image, the next is read and the one before is written. Every
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

    Raises:
        LsfdError: the source does not exist or has no image, two inputs would be written to one
            file, or an output would replace an input.
    """
    planned = plan([source] if isinstance(source, Path) else source, out, suffix, extension)
    _make_folders({target.parent for target in planned.outputs.values()})
    report = FolderReport(skipped=planned.skipped)
    jobs = dict(planned.outputs)
    if resume:
        report.kept = [target for target in jobs.values() if target.exists()]
        jobs = {image: target for image, target in jobs.items() if not target.exists()}
    _run(jobs, enlarger, size, report)
    return report


def _make_folders(folders: set[Path]) -> None:
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LsfdError(
                f"the output folder {folder} cannot be made ({error.strerror}); choose another one"
            ) from error


def _run(
    jobs: Mapping[Path, Path], enlarger: Enlarger, size: TargetSize | None, report: FolderReport
) -> None:
    """Read, enlarge and write images, each in a thread of its own, one image apart."""
    with (
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
        _Progress(len(jobs)) as progress,
    ):
        unwritten: tuple[Path, Path, Future[None]] | None = None
        for image, target, reading in _read_ahead(reader, jobs):
            with _noting(image, report):
                given = reading.result()
                height, width, _ = given.raster.shape
                progress.begin(image.name, height * width * enlarger.scale**2)
                enlarged = _enlarged(given, target, enlarger, progress.tell)
                final = None if size is None else size.of(width, height, enlarger.scale)
                _finish(unwritten, report)
                writing = writer.submit(_write, target, enlarged, final)
                unwritten = image, target, writing
            progress.end()
        _finish(unwritten, report)


def _read_ahead(
    reader: ThreadPoolExecutor, jobs: Mapping[Path, Path]
) -> Iterator[tuple[Path, Path, Future[Picture]]]:
    """Yield each image when the reading of the next one has begun."""
    waiting: tuple[Path, Path, Future[Picture]] | None = None
    for image, target in jobs.items():
        following = image, target, reader.submit(read_picture, image, target.parent)
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


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
        enlarger.enlarge(source, raster, progress)
    finally:
        source.close()
    return Picture(raster, given.metadata, given.resolution)


def _write(target: Path, picture: Picture, size: tuple[int, int] | None) -> None:
    try:
        write_picture(target, picture, size)
    finally:
        picture.raster.close()


def _finish(unwritten: tuple[Path, Path, Future[None]] | None, report: FolderReport) -> None:
    """Wait until an image is written, and say so in the report."""
    if unwritten is not None:
        image, target, writing = unwritten
        with _noting(image, report):
            writing.result()
            report.done.append(target)


@contextmanager
def _noting(image: Path, report: FolderReport) -> Iterator[None]:
    """Put what goes wrong with an image into the report."""
    try:
        yield
    except LsfdError as error:
        report.failed[image] = str(error)
    except MemoryError:
        report.failed[image] = "the memory does not suffice for it"


class _Progress:
    """A bar that counts images, in parts of one for large ones, and shows megapixels a second."""

    def __init__(self, images: int) -> None:
        self._bar = tqdm(total=images, desc="upscale", bar_format=_BAR, disable=None)
        self._start = time.perf_counter()
        self._name, self._pixels = "", 0
        self._before, self._share = 0, 0.0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.close()

    def begin(self, name: str, pixels: int) -> None:
        """Say which image is next, and of how many pixels the result is."""
        self._name, self._pixels = name, pixels

    def tell(self, share: float) -> None:
        """Say how much of it is done, 0 to 1."""
        done = self._before + share * self._pixels
        speed = done / 1e6 / max(time.perf_counter() - self._start, 1e-9)
        self._bar.set_postfix_str(f"{speed:.2f} megapixels/s, {self._name}", refresh=False)
        self._bar.update(share - self._share)
        self._share = share

    def end(self) -> None:
        """Say that the image is done, or cannot be."""
        self._bar.update(1 - self._share)
        self._before += round(self._pixels * self._share)
        self._share, self._pixels = 0.0, 0
