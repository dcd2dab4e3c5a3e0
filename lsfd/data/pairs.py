"""Which LR image belongs to which HR image, and reading the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.imaging.degradation import Degradation, low_resolution
from lsfd.imaging.files import find_images, read_image
from lsfd.imaging.resize import modcrop


@dataclass(frozen=True)
class ImagePair:
    """The files of one HR image and its LR image."""

    name: str
    """``ROOT/RELATIVE/NAME.EXT`` of the HR image; ``ROOT`` is its root folder's name."""
    gt: Path
    lq: Path | None
    """The LR image's file; None where it is made from the HR image."""
    degradation: Degradation | None = None
    """What happens to an LR image that is made, beside MATLAB's bicubic."""

    def read(self, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read the HR image, cropped to a multiple of ``scale``, and read or make the LR image.

        Returns:
            HR, uint8 H x W x 3, and LR, uint8 H/scale x W/scale x 3, both RGB.

        Raises:
            LsfdError: a file is no image, the LR image has the wrong size, or the HR image is too
                small for its degradation.
        """
        gt = modcrop(read_image(self.gt), scale)
        if gt.size == 0:
            raise LsfdError(f"{self.gt} has a side below {scale} pixels, the scale; remove it")
        if self.lq is None:
            return gt, self._make(gt, scale)
        lq = read_image(self.lq)
        height, width = gt.shape[0] // scale, gt.shape[1] // scale
        if lq.shape[:2] != (height, width):
            raise LsfdError(
                f"{self.lq} is {lq.shape[1]}x{lq.shape[0]} pixels, but the x{scale} LR image of "
                f"{self.gt} ({gt.shape[1]}x{gt.shape[0]} after cropping to a multiple of "
                f"{scale}) must be {width}x{height}"
            )
        return gt, lq

    def _make(self, gt: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        try:
            return low_resolution(gt, scale, self.degradation)
        except LsfdError as error:
            raise LsfdError(f"{self.gt}: {error}") from error


def find_pairs(
    gt_roots: Sequence[Path],
    lq_root: Path | None,
    scale: int,
    degradation: Degradation | None = None,
) -> list[ImagePair]:
    """List the images below all HR roots, root by root and sorted, each with its LR file.

    Args:
        gt_roots: folders of HR images, searched recursively.
        lq_root: folder of LR images under the relative names of the HR images (any image
            extension), or under BasicSR's, ``0001x4`` for ``0001``. None: LR is made from HR.
        scale: HR size over LR size.
        degradation: of LR images that are made.

    Raises:
        LsfdError: a folder is missing, there is no HR image, an HR image has no LR image, two
            of them have the same one, or two LR images have one name.
    """
    lq_files = _by_stem(lq_root) if lq_root else {}
    gt_of_lq: dict[Path, Path] = {}
    pairs = []
    for root in gt_roots:
        for gt in find_images(root):
            relative = gt.relative_to(root)
            lq = None
            if lq_root:
                stem = relative.with_suffix("").as_posix()
                lq = lq_files.get(stem) or lq_files.get(f"{stem}x{scale}")
                if lq is None:
                    raise LsfdError(
                        f"no LR image for {gt}: {lq_root} has neither {stem} nor {stem}x{scale} "
                        "with an image extension"
                    )
                if lq in gt_of_lq:
                    raise LsfdError(
                        f"{lq} would be the LR image of both {gt_of_lq[lq]} and {gt}; give the "
                        "two different names"
                    )
                gt_of_lq[lq] = gt
            name = f"{root.name}/{relative.as_posix()}"
            pairs.append(ImagePair(name, gt, lq, degradation))
    if not pairs:
        raise LsfdError(f"there is no image in {', '.join(map(str, gt_roots))}")
    return pairs


def _by_stem(root: Path) -> dict[str, Path]:
    """Map the relative name without extension to the file, for all images below ``root``."""
    files: dict[str, Path] = {}
    for path in find_images(root):
        other = files.setdefault(path.relative_to(root).with_suffix("").as_posix(), path)
        if other != path:
            raise LsfdError(f"{other} and {path} have the same name; remove or rename one")
    return files
