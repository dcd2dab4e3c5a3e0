"""Making pairs of high- and low-resolution images from a folder of any images.

``OUT/HR/<name>.png`` and ``OUT/LR_bicubic/X<scale>/<name>.png``, where ``<name>`` is the path below
the source folder without its extension. The low-resolution image is what MATLAB's ``imresize``
makes of the high-resolution one. Degraded ones go to a folder of their own beside these, such as
``OUT/LR_noise10_jpeg40/X<scale>``.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from lsfd.atomic import remove_leftovers
from lsfd.data.workers import end_with_parent
from lsfd.disk import make_folders
from lsfd.errors import LsfdError
from lsfd.imaging.degradation import Degradation, low_resolution
from lsfd.imaging.files import find_images, read_image, write_image
from lsfd.imaging.resize import modcrop
from lsfd.terminal import visible

SCALES = (2, 3, 4, 8)
"""The scales that pairs can be made for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareReport:
    """What became of the files of a source folder.

    Attributes:
        made: images whose pairs were written.
        existing: images whose pairs were there already.
        not_images: files passed over, each with a warning: no image, damaged, or too small.
    """

    made: int
    existing: int
    not_images: int

    def __str__(self) -> str:
        counts = [f"{self.made} pairs made"]
        if self.existing:
            counts.append(f"{self.existing} were there already")
        if self.not_images:
            counts.append(f"{self.not_images} files skipped")
        return ", ".join(counts)


class _Job(NamedTuple):
    source: Path
    hr: Path
    lr: dict[int, Path]
    degradation: Degradation | None


class _Outcome(NamedTuple):
    made: bool
    problem: str


def prepare_pairs(
    source: Path,
    out: Path,
    scales: Sequence[int] = (4,),
    workers: int | None = None,
    degradation: Degradation | None = None,
) -> PrepareReport:
    """Make the pairs of all images in a folder tree.

    Every HR image is cropped (at the bottom and right) to a multiple of the least common multiple
    of all scales, so that it is exactly ``s`` times as large as its LR image for each ``s``. With
    one scale this is the crop of the papers; for their exact x3 scores prepare x3 alone.

    A pair that is there, newer than its source, is not made again: a run that was stopped goes on
    where it was. Hidden files, and ``out`` where it lies inside ``source``, are not looked at.

    Args:
        source: folder of images of any size and format.
        out: folder to write; no image of ``source`` is ever changed.
        scales: of 2, 3, 4 and 8.
        workers: number of processes; all processors by default.
        degradation: of the low-resolution images; None: bicubic alone.

    Raises:
        LsfdError: ``source`` does not exist, holds no usable image, or lies inside ``out``; two
            images would get the same name; a scale is unknown; ``out`` holds pairs that would not
            fit images cropped for these scales; fewer than one worker; the disk cannot be written.
    """
    if workers is not None and workers < 1:
        raise LsfdError(f"the number of worker processes must be at least 1, not {workers}")
    source, out = source.resolve(), out.resolve()
    wanted = _checked_scales(scales, out, lr_folder(degradation))
    if source.is_relative_to(out):
        raise LsfdError(
            f"the source folder {source} lies in the output folder {out}, where its images would "
            "be replaced by cropped ones; choose another output folder"
        )
    images = [path for path in find_images(source) if not path.is_relative_to(out)]
    if not images:
        raise LsfdError(f"no image was found in {source}")
    jobs = _plan(source, out, images, wanted, degradation)
    problems = [f"{path} is not an image" for path in _other_files(source, out, images)]
    make_folders({path.parent for job in jobs for path in (job.hr, *job.lr.values())})
    made = existing = 0
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with tqdm(_run(jobs, workers), "prepare", len(jobs), unit="image", disable=None) as outcomes:
        for outcome in outcomes:
            if outcome.problem:
                problems.append(outcome.problem)
            elif outcome.made:
                made += 1
            else:
                existing += 1
    for problem in problems:
        _log.warning("passed over: %s", visible(problem))
    if not made and not existing:
        raise LsfdError(f"none of the {len(images)} images in {source} can be used: {problems[-1]}")
    return PrepareReport(made, existing, len(problems))


def _checked_scales(scales: Sequence[int], out: Path, own: str) -> list[int]:
    """Return the scales in order, after checking them and the pairs that ``out`` holds.

    Args:
        scales: that are asked for.
        out: the output folder.
        own: name of the folder in it that the low-resolution images go to.
    """
    wanted = sorted(set(scales))
    if not wanted or not set(wanted) <= set(SCALES):
        raise LsfdError(f"pairs can be made for the scales {SCALES}, not for {tuple(scales)}")
    for folder in sorted(out.glob("LR_*")):
        there = [scale for scale in SCALES if (folder / f"X{scale}").exists()]
        # Cropped for other scales, the HR images would no longer fit these.
        for scale in sorted(set(there) - set(wanted)):
            raise LsfdError(
                f"{out} holds pairs for x{scale}, and images cropped for {tuple(wanted)} might "
                f"not fit them; ask for x{scale} too, or choose another output folder"
            )
        if folder.name != own and there and math.lcm(*there) != math.lcm(*wanted):
            raise LsfdError(
                f"{folder} holds images for the scales {tuple(there)}, which would not fit HR "
                f"images cropped for {tuple(wanted)}; choose another output folder"
            )
    return wanted


def lr_folder(degradation: Degradation | None) -> str:
    """Return the name of the folder of low-resolution images: ``LR_bicubic``, ``LR_noise10`` ..."""
    if degradation is None:
        return "LR_bicubic"
    return "LR_" + str(degradation).lower().replace(", ", "_").replace(" ", "")


def _plan(
    source: Path,
    out: Path,
    images: Sequence[Path],
    scales: Sequence[int],
    degradation: Degradation | None,
) -> list[_Job]:
    """Give every image its output files, and refuse names that meet."""
    lr_root = out / lr_folder(degradation)
    taken: dict[Path, Path] = {}
    jobs = []
    for image in images:
        name = image.relative_to(source).with_suffix(".png")
        if name in taken:
            raise LsfdError(
                f"{taken[name]} and {image} would both become {name}; rename or remove one"
            )
        taken[name] = image
        lr = {scale: lr_root / f"X{scale}" / name for scale in scales}
        jobs.append(_Job(image, out / "HR" / name, lr, degradation))
    return jobs


def _other_files(source: Path, out: Path, images: Sequence[Path]) -> list[Path]:
    """Return the files of the tree that are not named like images, hidden ones aside."""
    known = set(images)
    return sorted(
        path
        for path in source.rglob("*")
        if path not in known
        and path.is_file()
        and not path.is_relative_to(out)
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[_Outcome]:
    """Do the jobs in order; in this process where one worker is enough."""
    if workers == 1:
        yield from map(_make_pair, jobs)
        return
    # Spawned, not forked: a fork of a process with threads (PyTorch's, OpenCV's) can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker)
    try:
        yield from pool.map(_make_pair, jobs)
    except BrokenProcessPool as error:
        raise LsfdError(
            "a process that makes pairs was killed, perhaps for want of memory; give the same "
            "command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Make a worker leave Ctrl-C to the process that started it, and end when that one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _make_pair(job: _Job) -> _Outcome:
    """Write the HR image of one source and its LR images, where they are not there yet."""
    if _is_done(job):
        for path in (job.hr, *job.lr.values()):
            remove_leftovers(path)
        return _Outcome(False, "")
    try:
        image = read_image(job.source)
    except LsfdError as error:
        return _Outcome(False, str(error))
    multiple = math.lcm(*job.lr)
    hr = modcrop(image, multiple)
    if not hr.size:
        return _Outcome(False, f"{job.source} is smaller than {multiple} pixels on a side")
    try:
        lr = {path: low_resolution(hr, scale, job.degradation) for scale, path in job.lr.items()}
    except LsfdError as error:
        return _Outcome(False, f"{job.source}: {error}")
    for path, image in ((job.hr, hr), *lr.items()):
        write_image(path, image, make_folder=False)
    return _Outcome(True, "")


def _is_done(job: _Job) -> bool:
    """Whether all files of a job exist, are newer than the source, and fit each other.

    Files are written in one step, so what exists is complete; sizes differ after a run for other
    scales.
    """
    try:
        oldest = min(path.stat().st_mtime_ns for path in (job.hr, *job.lr.values()))
        status = job.source.stat()
        # A file that was copied in another's place may have kept its old time of writing.
        if oldest < max(status.st_mtime_ns, status.st_ctime_ns):
            return False
        width, height = _size(job.hr)
        return all(_size(lr) == (width / s, height / s) for s, lr in job.lr.items())
    except OSError:
        return False


def _size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG from its header, without decoding it."""
    with path.open("rb") as file:
        header = file.read(24)
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
