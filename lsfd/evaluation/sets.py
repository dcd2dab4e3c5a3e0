"""Benchmark sets: pairs of a low-resolution image and its original, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsfd.errors import LsfdError, nearest
from lsfd.imaging.degradation import Degradation, low_resolution
from lsfd.imaging.files import find_images, read_image
from lsfd.imaging.resize import modcrop
from lsfd.metrics.image import SSIM_WINDOW

DATA_ROOT_VARIABLE = "LSFD_DATA"
"""The environment variable that names the folder of the sets when none is given."""


@dataclass(frozen=True)
class Pair:
    """The files of one image: the original, and the low-resolution one where there is one."""

    name: str
    hr: Path
    lr: Path | None


@dataclass(frozen=True)
class BenchmarkSet:
    """A named set of image pairs at one scale.

    Iterating yields ``(name, lq, hr)`` with uint8 H x W x 3 and sH x sW x 3, the original cropped
    to a multiple of the scale. Where no low-resolution file is given, the input is made from the
    cropped original as MATLAB would, and degraded if ``degradation`` says so.
    """

    name: str
    scale: int
    pairs: tuple[Pair, ...]
    degradation: Degradation | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for pair in self.pairs:
            lq, hr = self._read(pair)
            yield pair.name, self._made(pair, hr) if lq is None else lq, hr

    def share(self, rank: int, world_size: int) -> BenchmarkSet:
        """Return every ``world_size``-th pair, from pair ``rank``: perhaps none."""
        return replace(self, pairs=self.pairs[rank::world_size])

    def check(self) -> None:
        """Read every file once, so that a wrong one shows now and not in the middle of a run.

        Raises:
            LsfdError: a file is damaged, the images of a pair do not fit together, or one is too
                small to be scored.
        """
        smallest = SSIM_WINDOW + 2 * self.scale
        for pair in self.pairs:
            hr = self._read(pair)[1]
            height, width, _ = hr.shape
            if min(height, width) < smallest:
                raise LsfdError(
                    f"{pair.hr} has {width}x{height} pixels, too few to score at x{self.scale}: "
                    f"an image needs {smallest}x{smallest}; remove it"
                )
            if self.degradation is not None:
                self._made(pair, hr)

    def _made(self, pair: Pair, hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the input that is made of an original."""
        try:
            return low_resolution(hr, self.scale, self.degradation)
        except LsfdError as error:
            raise LsfdError(f"{pair.hr}: {error}") from error

    def _read(self, pair: Pair) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8]]:
        """Return input, where there is a file of it, and cropped original."""
        hr = modcrop(read_image(pair.hr), self.scale)
        if hr.size == 0:
            raise LsfdError(f"{pair.hr} is smaller than the scale, x{self.scale}; remove it")
        if pair.lr is None:
            return None, hr
        lq = read_image(pair.lr)
        if (lq.shape[0] * self.scale, lq.shape[1] * self.scale) != hr.shape[:2]:
            raise LsfdError(
                f"{pair.lr} has {lq.shape[1]}x{lq.shape[0]} pixels; as x{self.scale} input "
                f"for {pair.hr} it needs "
                f"{hr.shape[1] // self.scale}x{hr.shape[0] // self.scale}"
            )
        return lq, hr


def data_folder() -> Path:
    """Return the folder that the environment variable ``LSFD_DATA`` names.

    Raises:
        LsfdError: it names none.
    """
    if not os.environ.get(DATA_ROOT_VARIABLE):
        raise LsfdError(
            f"set the environment variable {DATA_ROOT_VARIABLE} to the folder that holds train/ "
            "and benchmarks/"
        )
    return Path(os.environ[DATA_ROOT_VARIABLE])


def find_set(name_or_folder: str, root: Path | None, scale: int) -> BenchmarkSet:
    """Find a set by its name below ``root``, or by its folder.

    The originals are the images in the folder ``HR`` of the set, or in the folder itself. The
    inputs are those in ``LR_bicubic/X<scale>`` beside ``HR`` where that folder exists (under the
    same names, or with ``x<scale>`` appended), otherwise they are made from the originals.

    Args:
        name_or_folder: ``Set5`` for ``ROOT/Set5/HR`` or ``ROOT/benchmarks/Set5/HR``; or a path.
        root: where the sets lie; None: what the environment variable ``LSFD_DATA`` says.
        scale: the factor between input and original.

    Raises:
        LsfdError: no such set, no images in it, or an input is missing.
    """
    hr_folder = _hr_folder(name_or_folder, root)
    lr_folder = hr_folder.parent / "LR_bicubic" / f"X{scale}"
    prepared = hr_folder.name == "HR" and lr_folder.is_dir()
    return set_from_folders(
        set_name(hr_folder), [hr_folder], [lr_folder] if prepared else [], scale
    )


def set_from_folders(
    name: str,
    hr_folders: Sequence[Path],
    lr_folders: Sequence[Path],
    scale: int,
    degradation: Degradation | None = None,
) -> BenchmarkSet:
    """Make a set of all images in some folders.

    Args:
        name: of the set.
        hr_folders: where the originals lie.
        lr_folders: where the inputs lie, under the same names as the originals or with
            ``x<scale>`` appended; empty: they are made from the originals.
        scale: the factor between input and original.
        degradation: what happens to inputs that are made, beside the bicubic.

    Raises:
        LsfdError: a folder does not exist, there are no originals, an input is missing, or two
            images have the same name.
    """
    originals = images_by_name(*hr_folders)
    if not originals:
        raise LsfdError(f"there is no image in {', '.join(map(str, hr_folders))}")
    if not lr_folders:
        made = tuple(Pair(image, hr, None) for image, hr in originals.items())
        return BenchmarkSet(name, scale, made, degradation)
    inputs = images_by_name(*lr_folders)
    pairs = []
    for image, hr in originals.items():
        lr = inputs.get(image) or inputs.get(f"{image}x{scale}")
        if lr is None:
            raise LsfdError(
                f"{hr} has no input in {', '.join(map(str, lr_folders))}; prepare the set again, "
                "or leave out the inputs to have them made from the originals"
            )
        pairs.append(Pair(image, hr, lr))
    return BenchmarkSet(name, scale, tuple(pairs))


def images_by_name(*folders: Path) -> dict[str, Path]:
    """Return the images of folder trees, sorted, by relative path without extension.

    Raises:
        LsfdError: a folder does not exist, or two images have the same name.
    """
    images: dict[str, Path] = {}
    for folder in folders:
        for path in find_images(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in images:
                raise LsfdError(f"{images[name]} and {path} have the same name; rename one")
            images[name] = path
    return images


def set_name(hr_folder: Path) -> str:
    """Return the name of the set: that of the folder, or of its parent when it is called HR."""
    folder = hr_folder.resolve()
    return folder.parent.name if folder.name == "HR" else folder.name


def _hr_folder(name_or_folder: str, root: Path | None) -> Path:
    """Return the folder with the originals."""
    given = Path(name_or_folder)
    if root is None and DATA_ROOT_VARIABLE in os.environ:
        root = Path(os.environ[DATA_ROOT_VARIABLE])
    below_root = [root / given, root / "benchmarks" / given] if root is not None else []
    candidates = [*(folder / "HR" for folder in below_root), given / "HR", given]
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    if root is None:
        advice = f"set the environment variable {DATA_ROOT_VARIABLE} to the folder of the sets"
    else:
        there = _sets_below(root)
        advice = f"{root} has {', '.join(there) or 'no sets'}{_did_you_mean(given.name, there)}"
    raise LsfdError(
        f"benchmark set '{name_or_folder}' not found (looked for {looked}); {advice}; "
        f"'lsfd prepare --download {given.name}' gets a public set"
    )


def _sets_below(root: Path) -> list[str]:
    """Return the names of the sets that lie in a data folder."""
    return sorted({hr.parent.name for hr in (*root.glob("*/HR"), *root.glob("benchmarks/*/HR"))})


def _did_you_mean(name: str, names: list[str]) -> str:
    hint = nearest(name, names)
    return hint if "did you mean" in hint else ""
