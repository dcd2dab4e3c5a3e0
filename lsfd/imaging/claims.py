"""Headers that claim more pixels than their file can hold: refused before anything is decoded.

OpenCV takes memory for all of them, libvips tries for seconds, and both may fill in with grey what
is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

HEADER_BYTES = 1 << 20
"""Where a JPEG's size is found, whatever profiles and thumbnails stand before it."""

JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""Begins a part of a JPEG; those left out stand for bytes and restarts within a scan."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers in front of width and height."""


def claims_too_much(start: bytes, size: int) -> bool:
    """Return whether an image file cannot hold what its header says.

    PNG, JPEG, GIF and BMP are looked at. A WebP may be one colour of any size, and a TIFF is read
    strip by strip.

    Args:
        start: its first ``HEADER_BYTES``, or all of it.
        size: bytes of the file.
    """
    for kind in _KINDS:
        if start.startswith(kind.beginning):
            width, height = kind.sides(start)
            return width * height > kind.pixels_per_byte * size
    return False


def _sides_of_png(start: bytes) -> tuple[int, int]:
    return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")


def _sides_of_gif(start: bytes) -> tuple[int, int]:
    return int.from_bytes(start[6:8], "little"), int.from_bytes(start[8:10], "little")


def _sides_of_bmp(start: bytes) -> tuple[int, int]:
    if int.from_bytes(start[14:18], "little") == 12:  # OS/2's
        return int.from_bytes(start[18:20], "little"), int.from_bytes(start[20:22], "little")
    sides = (int.from_bytes(start[at : at + 4], "little", signed=True) for at in (18, 22))
    width, height = map(abs, sides)  # A negative height: the first row is the upper one.
    return width, height


def _sides_of_jpeg(start: bytes) -> tuple[int, int]:
    """Return width and height, 0 if they are not found."""
    place = 2
    while found := JPEG_MARKER.search(start, place):
        place = found.end()
        if start[place - 1] in _FRAMES:
            height, width = (start[at : at + 2] for at in (place + 3, place + 5))
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        place += max(int.from_bytes(start[place : place + 2], "big"), 2)
    return 0, 0


class _Kind(NamedTuple):
    beginning: bytes
    sides: Callable[[bytes], tuple[int, int]]
    pixels_per_byte: int  # At most.


_KINDS = (
    _Kind(b"\x89PNG", _sides_of_png, 8 * 1032),  # Deflate makes 1032 bytes of 8 pixels one.
    _Kind(b"\xff\xd8", _sides_of_jpeg, 8 * 64 * 2),  # A bit at least for 64, or 128 of a chroma.
    _Kind(b"GIF8", _sides_of_gif, 4096),  # A code of 12 bits for all that a table may hold.
    _Kind(b"BM", _sides_of_bmp, 255),  # Two bytes for a run; no more than 8 in a byte without.
)
