"""The header that makes rows of pixels an uncompressed BigTIFF file."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

_ROWS_PER_STRIP = 16
_SHORT, _LONG, _LONG8 = (3, "H"), (4, "I"), (16, "Q")  # TIFF's number of the type, and struct's.
_FIRST = 16  # Where the directory begins.


def tiff_header(shape: tuple[int, int, int], dtype: DTypeLike) -> bytes:
    """Return what stands before the pixels, row by row in the machine's byte order.

    Args:
        shape: height, width, bands; 1 band is grey, 3 are RGB, one more is alpha.
        dtype: uint8 or uint16.
    """
    length = len(_header(shape, np.dtype(dtype).itemsize, 0))
    return _header(shape, np.dtype(dtype).itemsize, length)


def _header(shape: tuple[int, int, int], size: int, start: int) -> bytes:
    height, width, bands = shape
    row = width * bands * size
    tops = range(0, height, _ROWS_PER_STRIP)
    fields: list[tuple[int, tuple[int, str], Sequence[int]]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8 * size] * bands),  # bits
        (259, _SHORT, [1]),  # not compressed
        (262, _SHORT, [2 if bands > 2 else 1]),  # RGB, or grey whose 0 is black
        (273, _LONG8, [start + top * row for top in tops]),
        (277, _SHORT, [bands]),
        (278, _LONG, [_ROWS_PER_STRIP]),
        (279, _LONG8, [row * min(_ROWS_PER_STRIP, height - top) for top in tops]),
        (284, _SHORT, [1]),  # bands of a pixel side by side
        *([(338, _SHORT, [2])] if bands in (2, 4) else []),  # alpha, not multiplied in
    ]
    directory, beyond = struct.pack("=Q", len(fields)), b""
    behind = _FIRST + 8 + 20 * len(fields) + 8
    for tag, (number, letter), values in fields:
        data = struct.pack(f"={len(values)}{letter}", *values)
        if len(data) > 8:  # What does not fit into the directory lies behind it.
            place = struct.pack("=Q", behind + len(beyond))
            beyond += data
        else:
            place = data.ljust(8, b"\0")
        directory += struct.pack("=HHQ", tag, number, len(values)) + place
    order = b"II" if struct.pack("=H", 1) == b"\1\0" else b"MM"
    return order + struct.pack("=HHHQ", 43, 8, 0, _FIRST) + directory + bytes(8) + beyond
