"""Cutting an image into tiles that overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator

SMALLEST = 16
"""The side of the smallest automatic tile, in input pixels, without its surroundings."""


def spans(start: int, length: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a side into tiles from ``start`` on: both ends of each, without and with surroundings."""
    for begin in range(start, length, tile):
        end = min(begin + tile, length)
        yield begin, end, max(begin - overlap, 0), min(end + overlap, length)


def fitting_tile(height: int, width: int, overlap: int, pixels: int) -> int:
    """Return the side of the largest square tile that takes so many pixels with surroundings.

    An image that has no more is one tile.
    """
    if height * width <= pixels:
        return max(height, width)
    # What is at the image's edge, or is as wide as the image, has less around it.
    shorter = min(height, width)
    side = math.isqrt(max(pixels, 1)) - 2 * overlap
    if side + 2 * overlap > shorter:
        side = pixels // shorter - 2 * overlap
    return max(side, SMALLEST)
