"""Photographs to calibrate and to score an export in integers with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsfd.data.embedded import embedded_files
from lsfd.errors import LsfdError
from lsfd.imaging.files import find_images, read_image
from lsfd.imaging.resize import downscale

_MOST = 32
_SIDE = 128
_SMALLEST = 16


class Pair(NamedTuple):
    """The middle of a photograph, and the low-resolution image made from it: H x W x 3, RGB."""

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


def photograph_pairs(
    folder: Path | None, scale: int, multiple: int
) -> tuple[list[Pair], list[Pair]]:
    """Return pairs to calibrate with, and others to score with: every second one.

    Args:
        folder: of photographs in high resolution, of which at most 32, evenly chosen, are read;
            None: those that scikit-image ships.
        scale: HR size over LR size; low resolution is made by MATLAB's bicubic.
        multiple: what the sides of the LR images are a multiple of; they are at most 128 long.

    Raises:
        LsfdError: there are not two photographs that are large enough, or one cannot be read.
    """
    files = sorted(embedded_files()) if folder is None else find_images(folder)
    pairs = []
    for path in files[:: -(-len(files) // _MOST) or 1]:
        hr = _middle(read_image(path), scale, multiple)
        if min(hr.shape[:2]) >= _SMALLEST * scale:
            pairs.append(Pair(downscale(hr, scale), hr))
    if len(pairs) < 2:
        least = _SMALLEST * scale
        raise LsfdError(
            f"integers take two or more photographs of at least {least}x{least} pixels, and "
            f"{folder or 'scikit-image'} has {len(pairs)}"
        )
    return pairs[::2], pairs[1::2]


def _middle(image: NDArray[np.uint8], scale: int, multiple: int) -> NDArray[np.uint8]:
    """Return the middle of an image, as large as is used of it."""
    step = scale * multiple
    height, width = (min(side, _SIDE * scale) // step * step for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
