"""Colours under pixels that cannot be seen."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

REACH = 8
"""As far, in pixels, from what can be seen are hidden colours replaced."""

_NEIGHBOURS = np.ones((3, 3), np.float32)


def spread_colours(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give fully transparent pixels the colours of their nearest visible neighbours.

    Files keep black, white or leftovers there. A network that looks at surroundings would carry
    that into the visible edge as a dark or light fringe.

    Args:
        pixels: H x W x 2 (grey, alpha) or H x W x 4 (RGB, alpha), 8 or 16 bits.

    Returns:
        The same, or a copy with other colours within ``REACH`` pixels of a visible one.
    """
    seen = pixels[:, :, -1] > 0
    if seen.all() or not seen.any():
        return pixels
    colours = pixels[:, :, :-1].astype(np.float32)
    for _ in range(REACH):
        known = seen.astype(np.float32)
        count = _sums(known)
        new = ~seen & (count > 0)
        total = np.dstack([_sums(colours[:, :, band] * known) for band in range(colours.shape[2])])
        colours[new] = total[new] / count[new, None]
        seen |= new
    spread = pixels.copy()
    spread[:, :, :-1] = np.rint(colours)
    return spread


def _sums(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum over each pixel and its neighbours."""
    summed = cv2.filter2D(plane, -1, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(summed, np.float32)
