"""Pixels of an image that may be larger than the memory: many of them lie in a temporary file."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from numpy.typing import DTypeLike, NDArray

from lsfd.errors import LsfdError
from lsfd.imaging.tiff_header import tiff_header

IN_MEMORY = 32 << 20
"""Rasters of more bytes lie in a file."""

_SPARE = 64 << 20  # Bytes of the disk that are left to others.
_STRIP = 64  # Rows that are decoded at a time.
_FORMATS = {np.dtype(np.uint8): "uchar", np.dtype(np.uint16): "ushort"}


class Raster:
    """Height x width x bands pixels of 8 or 16 bits, read and written in rectangles.

    The temporary file is not mapped into memory, where all that was read or written would count
    as the process's own. It is an uncompressed TIFF file, so that libvips does not map it either.

    Attributes:
        shape: height, width, bands.
        dtype: uint8 or uint16.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: DTypeLike, folder: Path | None = None
    ) -> None:
        """Make room for the pixels; what they are at first is undefined.

        Args:
            shape: height, width, bands.
            dtype: uint8 or uint16.
            folder: where the temporary file lies if one is needed; None: where the system has
                its temporary files. ``$TMPDIR`` overrules it.

        Raises:
            LsfdError: the temporary file cannot be made.
        """
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._array: NDArray[Any] | None = None
        self._folder = Path(os.environ.get("TMPDIR") or folder or tempfile.gettempdir())
        if math.prod(shape) * self.dtype.itemsize <= IN_MEMORY:
            self._array = np.empty(shape, self.dtype)
            return
        with self._disk():
            self._check_room()
            # Without a name, so that it goes with the process, in whatever way that ends.
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
            header = tiff_header(shape, dtype)
            self._start = len(header)
            self._file.write(header)

    @classmethod
    def from_array(cls, pixels: NDArray[Any]) -> Raster:
        """Return a raster of the pixels of an array, H x W x C, which it shares."""
        raster = cls((0, 0, 0), pixels.dtype)
        height, width, bands = pixels.shape
        raster.shape, raster._array = (height, width, bands), pixels
        return raster

    @classmethod
    def from_vips(cls, image: pyvips.Image, folder: Path | None = None) -> Raster:
        """Return a raster of the pixels of an image of 8 or 16 bits, which is decoded for it."""
        dtype = np.uint16 if image.format == "ushort" else np.uint8
        raster = cls((image.height, image.width, image.bands), dtype, folder)
        for top, rows in strips(image):
            raster.write(top, 0, rows)
        return raster

    def read(self, top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
        """Return the pixels of a rectangle; not to be written to."""
        if self._array is not None:
            return self._array[top:bottom, left:right]
        block = np.empty((bottom - top, right - left, self.shape[2]), self.dtype)
        with self._disk():
            for row, pixels in enumerate(block, top):
                self._file.seek(self._offset(row, left))
                self._file.readinto(memoryview(pixels).cast("B"))
        return block

    def write(self, top: int, left: int, block: NDArray[Any]) -> None:
        """Put a rectangle of pixels at a place.

        Raises:
            LsfdError: the disk is full, or the like.
        """
        height, width, _ = block.shape
        if self._array is not None:
            self._array[top : top + height, left : left + width] = block
            return
        with self._disk():
            for row, pixels in enumerate(np.ascontiguousarray(block, self.dtype), top):
                self._file.seek(self._offset(row, left))
                if self._file.write(memoryview(pixels).cast("B")) != pixels.nbytes:
                    raise OSError("the disk is full")

    def image(self) -> pyvips.Image:
        """Return the pixels as an image, to be read once, downwards, before ``close``."""
        if self._array is None:
            self._file.seek(0)
            source = pyvips.Source.new_from_descriptor(self._file.fileno())
            return pyvips.Image.new_from_source(source, "", access="sequential")
        height, width, bands = self.shape
        form = _FORMATS[self.dtype]
        memory = np.ascontiguousarray(self._array)
        image = pyvips.Image.new_from_memory(memory.data, width, height, bands, form)
        colours = ("b-w", "srgb") if form == "uchar" else ("grey16", "rgb16")
        return image.copy(interpretation=colours[bands > 2])

    def close(self) -> None:
        """Give memory and file back."""
        if self._array is None:
            self._file.close()
        else:
            self._array = np.empty((0, 0, 0), self.dtype)

    def _offset(self, row: int, column: int) -> int:
        _, width, bands = self.shape
        return self._start + (row * width + column) * bands * self.dtype.itemsize

    def _check_room(self) -> None:
        """Refuse to fill the disk: a small file may claim any number of pixels."""
        needed = math.prod(self.shape) * self.dtype.itemsize
        free = shutil.disk_usage(self._folder).free
        if needed + _SPARE > free:
            raise OSError(f"the disk has {free >> 20} MB free")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            megabytes = math.prod(self.shape) * self.dtype.itemsize >> 20
            raise LsfdError(
                f"{megabytes} MB of pixels do not go into a temporary file in {self._folder} "
                f"({error.strerror or error}); let TMPDIR name a folder with more space"
            ) from error


def strips(image: pyvips.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the pixels of an image of 8 or 16 bits, from the top: a row's number and some rows."""
    region = pyvips.Region.new(image)
    dtype = np.uint16 if image.format == "ushort" else np.uint8
    for top in range(0, image.height, _STRIP):
        height = min(_STRIP, image.height - top)
        pixels = np.frombuffer(region.fetch(0, top, image.width, height), dtype)
        yield top, pixels.reshape(height, image.width, image.bands)
