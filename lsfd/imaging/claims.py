"""PNG headers that claim more pixels than the file can hold: refused before anything is decoded.

OpenCV takes memory for all of them, and libvips tries for seconds, before either finds that they
are not there.
"""

from __future__ import annotations

HEADER_BYTES = 24

_PIXELS_PER_BYTE = 8 * 1032
"""At most: 8 pixels in a byte, which deflate can make 1032 times smaller."""


def claims_too_much(header: bytes, size: int) -> bool:
    """Return whether an image file is a PNG that cannot hold what its header says.

    Args:
        header: its first ``HEADER_BYTES``, or more.
        size: bytes of the file.
    """
    width, height = (int.from_bytes(header[place : place + 4], "big") for place in (16, 20))
    return header.startswith(b"\x89PNG") and width * height > _PIXELS_PER_BYTE * size
