"""Bicubic resizing of 8-bit images, bit-exact with MATLAB's ``imresize``.

Super-resolution papers make their low-resolution images with MATLAB, so every published score
rests on it. MATLAB resizes an 8-bit image one dimension at a time and rounds to 8 bits after
each; a resize that keeps floating point in between differs on 10-15 % of the pixels.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lsfd.errors import LsfdError

_KERNEL_WIDTH = 4.0  # The cubic kernel is zero outside -2..2.
_BLOCK_ROWS = 32  # Output rows worked on at a time, so that the sums stay in the cache.


def imresize(image: NDArray[np.uint8], scale: Fraction | float) -> NDArray[np.uint8]:
    """Resize an image as MATLAB's ``imresize(image, scale)`` does for uint8.

    Cubic convolution kernel with a = -0.5 (Keys 1981), widened by ``1 / scale`` when shrinking
    (MATLAB's ``Antialiasing``), borders mirrored, height before width, rounded half up and
    clipped to 8 bits after each of the two.

    Args:
        image: uint8, H x W or H x W x C.
        scale: output size over input size, for both dimensions; ``Fraction(1, 3)`` gives exact
            output sizes.

    Returns:
        uint8, ``ceil(H * scale)`` x ``ceil(W * scale)`` (x C).

    Raises:
        LsfdError: the image is not uint8 with 2 or 3 non-empty dimensions, or ``scale`` is not
            a positive finite number.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise LsfdError(
            f"imresize needs a uint8 image, H x W or H x W x C, but was given {image.dtype} of "
            f"shape {image.shape}; convert it first"
        )
    if not (math.isfinite(scale) and scale > 0):
        raise LsfdError(f"imresize needs a positive scale, but was given {scale}")
    swapped = (1, 0, *range(2, image.ndim))
    tall = _resize_first_dimension(image, scale)
    wide = _resize_first_dimension(tall.transpose(swapped), scale)
    return np.ascontiguousarray(wide.transpose(swapped))


def downscale(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Shrink a uint8 image (H x W or H x W x C) by an integer factor, as ``imresize`` does."""
    return imresize(image, Fraction(1, scale))


def upscale(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge a uint8 image (H x W or H x W x C) by an integer factor: the bicubic baseline."""
    return imresize(image, Fraction(scale))


def modcrop(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Crop height and width (at the bottom and right) to multiples of ``scale``; a view."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def _resize_first_dimension(image: NDArray[np.uint8], scale: Fraction | float) -> NDArray[np.uint8]:
    """Resize the first dimension of a uint8 array and round to uint8."""
    rows = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    indices, weights = _contributions(image.shape[0], scale)
    out = np.empty((len(weights), rows.shape[1]), np.uint8)
    for start in range(0, len(weights), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        total = np.zeros((len(weights[block]), rows.shape[1]))
        # Summed in the kernel's order: at x3 many sums lie within one rounding error of a half,
        # and a BLAS product, free to reorder, would round some of them the other way.
        for tap in range(weights.shape[1]):
            total += weights[block, tap, None] * rows[indices[block, tap]]
        out[block] = np.clip(np.floor(total + 0.5), 0, 255)
    return out.reshape(-1, *image.shape[1:])


@lru_cache(maxsize=256)
def _contributions(
    length: int, scale: Fraction | float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which input samples make each output sample, and how much of each.

    Both arrays are ``ceil(length * scale)`` x taps; each row of weights adds up to 1. Written
    in the order of operations of MATLAB's ``imresize.m``, so that rounding errors agree too.
    """
    factor = float(scale)
    shrink = min(factor, 1.0)
    width = _KERNEL_WIDTH / shrink
    output = np.arange(1, math.ceil(length * scale) + 1, dtype=np.float64)
    center = output / factor + 0.5 * (1 - 1 / factor)
    left = np.floor(center - width / 2)
    positions = left[:, None] + np.arange(math.ceil(width) + 2)
    weights = shrink * _cubic(shrink * (center[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    indices = mirrored[(positions.astype(np.int64) - 1) % (2 * length)]
    used = np.any(weights != 0, axis=0)
    return np.ascontiguousarray(indices[:, used]), np.ascontiguousarray(weights[:, used])


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the cubic convolution kernel with a = -0.5 (Keys 1981, equation 15)."""
    x1 = np.abs(x)
    x2 = x1**2
    x3 = x1**3
    near = 1.5 * x3 - 2.5 * x2 + 1
    far = -0.5 * x3 + 2.5 * x2 - 4 * x1 + 2
    return np.where(x1 <= 1, near, np.where(x1 <= 2, far, 0.0))
