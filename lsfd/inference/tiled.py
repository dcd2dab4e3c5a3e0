"""Enlarging a raster in tiles, whatever computes them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from numpy.typing import DTypeLike, NDArray

from lsfd.errors import LsfdError
from lsfd.imaging.raster import Raster
from lsfd.imaging.transparency import REACH
from lsfd.inference.memory import noticing_scarcity
from lsfd.inference.tiles import fitting_tile, spans

ENDLESS_OVERLAP = 32
"""Input pixels around a tile for networks that see everything: no overlap would be enough."""

TRANSPARENT = (2, 4)
"""Bands of images with alpha."""

Progress = Callable[[float], None]


class TiledUpscaler(ABC):
    """Runs tiles one after another, each with surroundings that are cut off from the result.

    The memory needed depends on the tile instead of the image. Unless it is given, the
    surroundings are as far as the network sees, so that the result is that of the whole image.
    Networks that see everything, such as RCAN with its means over the image, take them over each
    tile: their tiles differ.

    Where the memory does not suffice all the same, tiles of half the side are tried, and so on.

    Args:
        scale: how many times longer the sides of a result are.
        multiple: what the sides of tiles are rounded up to.
        tile: side of a tile in input pixels; None: as large as fits into the memory.
        tile_overlap: input pixels of surroundings on each side of a tile; None: as far as the
            network sees.

    Attributes:
        at_once: how many threads may call :meth:`enlarge` at the same time.

    Raises:
        LsfdError: impossible tile sizes.
    """

    def __init__(
        self,
        scale: int,
        multiple: int = 1,
        tile: int | None = None,
        tile_overlap: int | None = None,
    ) -> None:
        if tile is not None and tile < 1:
            raise LsfdError(f"a tile has at least 1 pixel, not {tile}; leave it out for none")
        if tile_overlap is not None and tile_overlap < 0:
            raise LsfdError(f"tile_overlap must be 0 or more pixels, not {tile_overlap}")
        self.scale = scale
        self.multiple = multiple
        self.at_once = 1
        self._tile = tile
        self._tile_overlap = tile_overlap
        self._largest: int | None = None  # The side of a tile, once larger ones did not fit.

    def expect(self, images: int) -> None:  # noqa: B027
        """Say how many images are to come, before the first; ``at_once`` may change."""

    def enlarge(self, source: Raster, target: Raster, progress: Progress | None = None) -> None:
        """Enlarge a raster: grey or RGB, with or without alpha, of 8 or 16 bits.

        Args:
            source: what to enlarge.
            target: gets the result; as many bands, sides ``scale`` times as long, 8 or 16 bits.
            progress: is told the share that is done, 0 to 1, after every tile.

        Raises:
            LsfdError: the network does not enlarge by ``scale``, its output is not finite, memory
                does not suffice, or a raster's temporary file does not find room.
        """
        height, width, _ = source.shape
        tile = self._tile or max(height, width)
        if self._tile is None:
            pixels = self._pixels_at_once()
            if height * width > pixels:  # Only then is the overlap worth to be measured.
                tile = fitting_tile(height, width, self._overlap, pixels)
        self._run_tiles(source, target, tile, progress or _nobody)

    @abstractmethod
    def _run(
        self, pixels: NDArray[Any], rows: slice, columns: slice, dtype: DTypeLike
    ) -> NDArray[Any]:
        """Return a part of pixels enlarged.

        Args:
            pixels: h x w x C, 8 or 16 bits.
            rows: of the result, which part is wanted.
            columns: of the result.
            dtype: of the result, 8 or 16 bits.
        """

    @abstractmethod
    def _pixels_at_once(self) -> int:
        """Return how many pixels of input the memory suffices for."""

    @abstractmethod
    def _sees(self) -> int | None:
        """Return how many pixels to each side the network sees; None: everything."""

    @property
    def _overlap(self) -> int:
        """Input pixels around a tile."""
        if self._tile_overlap is not None:
            return self._round_up(self._tile_overlap)
        sees = self._sees()
        return self._round_up(ENDLESS_OVERLAP if sees is None else sees)

    def _run_tiles(self, source: Raster, target: Raster, tile: int, progress: Progress) -> None:
        """Enlarge a raster row of tiles by row of tiles, with smaller ones where it has to be."""
        height, width, _ = source.shape
        tile = min(tile, self._largest or tile)
        top = 0
        while top < height:
            scarce: list[str] = []
            with noticing_scarcity(scarce):
                top = self._run_row(source, target, top, self._round_up(tile), progress)
            if scarce:
                tile = self._smaller(min(tile, max(height, width)), scarce[0])

    def _smaller(self, tile: int, problem: str) -> int:
        if tile <= self.multiple:
            raise LsfdError(f"the memory does not suffice even for the smallest tiles: {problem}")
        self._largest = max(tile // 2, self.multiple)
        return self._largest

    def _run_row(
        self, source: Raster, target: Raster, first: int, tile: int, progress: Progress
    ) -> int:
        """Run the tiles that lie beside each other, and return where the next ones begin."""
        height, width, bands = source.shape
        overlap = 0
        if tile < height or tile < width:
            overlap = self._overlap + (self._round_up(REACH) if bands in TRANSPARENT else 0)
        top, bottom, *rows = next(spans(first, height, tile, overlap))
        for left, right, *columns in spans(0, width, tile, overlap):
            inner_rows = slice((top - rows[0]) * self.scale, (bottom - rows[0]) * self.scale)
            inner_columns = slice(
                (left - columns[0]) * self.scale, (right - columns[0]) * self.scale
            )
            pixels = source.read(*rows, *columns)
            result = self._run(pixels, inner_rows, inner_columns, target.dtype)
            target.write(top * self.scale, left * self.scale, result)
            progress((top * width + (bottom - top) * right) / (height * width))
        return bottom

    def _round_up(self, pixels: int) -> int:
        return math.ceil(pixels / self.multiple) * self.multiple


def _nobody(share: float) -> None:
    """Take note of nothing."""
