"""PPM and PGM files, whose white need not be 255 or 65535."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_START_BYTES = 4096
_COMMENT = re.compile(rb"#[^\n]*")


def full_range(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """Return pixels as OpenCV reads them, stretched to the full range of their type.

    Args:
        pixels: uint8 or uint16; of another type they stay as they are.
        data: the file. What is no PPM or PGM, or has the full range, stays as it is.
    """
    binary = data[:2] in (b"P5", b"P6") and pixels.dtype in (np.uint8, np.uint16)
    # Texts of up to 8 bits OpenCV stretches itself.
    text = data[:2] in (b"P2", b"P3") and pixels.dtype == np.uint16
    if not binary and not text:
        return pixels
    # P5, width, height, white, and then the pixels.
    fields = _COMMENT.sub(b" ", data[:_START_BYTES]).split(maxsplit=4)
    white = int(fields[3]) if len(fields) > 3 and fields[3].isdigit() else 0
    largest = np.iinfo(pixels.dtype).max
    if white in (0, largest):
        return pixels
    levels = np.minimum(pixels, white).astype(np.uint64)
    return ((levels * largest + white // 2) // white).astype(pixels.dtype)
