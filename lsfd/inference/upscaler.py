"""A network as a function from an image to a larger image."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.imaging.raster import Raster
from lsfd.imaging.transparency import REACH, spread_colours
from lsfd.inference.device import autocast_dtype, pick_device
from lsfd.inference.memory import budget, bytes_per_pixel, noticing_scarcity
from lsfd.inference.planes import enlarge_planes, filled_up, self_ensemble, to_pixels, to_planes
from lsfd.inference.tiles import fitting_tile, spans
from lsfd.networks.reach import reach
from lsfd.networks.trial import evaluating, size_multiple

WHOLE_IMAGE_PIXELS = 8_000_000
"""Arrays whose output has no more pixels than this are never cut into tiles unasked.

So scores do not depend on a machine's memory, whatever the network. EDSR with 64 channels needs
about 700 bytes for each output pixel: some 5 GB for as many as this.
"""

ENDLESS_OVERLAP = 32
"""Input pixels around a tile for networks that see everything: no overlap would be enough."""


class Upscaler:
    """Runs a network on one image at a time, whole or in tiles.

    Tiles are run one after another, each with surroundings that are cut off from the result: the
    memory needed depends on the tile instead of the image. Unless it is given, the surroundings
    are as far as the network sees, so that the result is that of the whole image. Networks that
    see everything, such as RCAN with its means over the image, take them over each tile: their
    tiles differ.

    Where the memory does not suffice all the same, tiles of half the side are tried, and so on.

    Sizes that are no multiple of the windows of an attention network are filled up by reflection,
    and the result is cropped.

    The network is moved to the device and otherwise left as it is: it runs in eval mode, but
    every module gets its own mode back, and the memory layout of the weights stays, so that a
    validation leaves no trace in a training.

    Args:
        network: takes N x 3 x H x W in 0..1 and returns N x 3 x sH x sW.
        scale: the s by which the network enlarges.
        device: a torch device, or a name that :func:`~lsfd.inference.device.pick_device` knows.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``, see
            :func:`~lsfd.inference.device.autocast_dtype`; ``auto`` is ``fp32`` for 16-bit images.
        tile: side of a tile in input pixels; None: as large as fits into the memory.
        tile_overlap: input pixels of surroundings on each side of a tile; None: as far as the
            network sees.
        ensemble: whether the image is run mirrored and turned in all eight ways, and the mean is
            taken.

    Attributes:
        multiple: what the sides of the network's input must be a multiple of.

    Raises:
        LsfdError: unknown device or precision, or impossible tile sizes.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        tile: int | None = None,
        tile_overlap: int | None = None,
        ensemble: bool = False,
    ) -> None:
        if tile is not None and tile < 1:
            raise LsfdError(f"a tile has at least 1 pixel, not {tile}; leave it out for none")
        if tile_overlap is not None and tile_overlap < 0:
            raise LsfdError(f"tile_overlap must be 0 or more pixels, not {tile_overlap}")
        self.device = device if isinstance(device, torch.device) else pick_device(device)
        self.scale = scale
        self.network = network.to(self.device)
        self._dtype = autocast_dtype(precision, self.device)
        self._deep_dtype = None if precision == "auto" else self._dtype
        self._tile = tile
        self._tile_overlap = tile_overlap
        self._ensemble = ensemble
        self._largest: int | None = None  # The side of a tile, once larger ones did not fit.
        self.multiple = size_multiple(network)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image enlarged.

        Args:
            image: uint8, H x W x 3, RGB.

        Returns:
            uint8, sH x sW x 3, RGB; values rounded half up and clipped to 0..255.

        Raises:
            LsfdError: not such an image, or the network does not enlarge by ``scale``, or its
                output is not finite.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise LsfdError(
                f"an image to upscale is uint8 H x W x 3, not {image.dtype} of shape {image.shape}"
            )
        height, width, _ = image.shape
        result = np.empty((height * self.scale, width * self.scale, 3), np.uint8)
        whole = height * width * self.scale**2 <= WHOLE_IMAGE_PIXELS
        source, target = Raster.from_array(image), Raster.from_array(result)
        self._run_tiles(source, target, self._first_tile(height, width, whole), _nobody)
        return result

    def enlarge(
        self, source: Raster, target: Raster, progress: Callable[[float], None] | None = None
    ) -> None:
        """Enlarge a raster: grey or RGB, with or without alpha, of 8 or 16 bits.

        Args:
            source: what to enlarge.
            target: gets the result; as many bands, sides ``scale`` times as long, 8 or 16 bits.
            progress: is told the share that is done, 0 to 1, after every tile.

        Raises:
            LsfdError: as in ``__call__``, or a raster's temporary file does not find room.
        """
        height, width, _ = source.shape
        tile = self._first_tile(height, width, False)
        self._run_tiles(source, target, tile, progress or _nobody)

    def planes(self, planes: Tensor) -> Tensor:
        """Return images enlarged, whole, whatever memory that takes.

        Args:
            planes: N x C x h x w in 0..1, float32, on the device of the network; C is 1 (grey), 2
                (with alpha), 3 (RGB) or 4 (with alpha).

        Returns:
            N x C x sh x sw as the network gives it: it may leave 0..1 a little.

        Raises:
            LsfdError: as in ``__call__``.
        """
        with evaluating(self.network):
            return self._run_planes(planes, self._deep_dtype)

    @cached_property
    def _reach(self) -> int | None:
        return reach(self.network)

    @cached_property
    def _bytes_per_pixel(self) -> int:
        return bytes_per_pixel(self.network)

    @property
    def _overlap(self) -> int:
        """Input pixels around a tile."""
        if self._tile_overlap is not None:
            return self._round_up(self._tile_overlap)
        return self._round_up(ENDLESS_OVERLAP if self._reach is None else self._reach)

    def _first_tile(self, height: int, width: int, whole: bool) -> int:
        """Return the side of the tile to begin with; that of the image, if ``whole``."""
        tile = self._tile or max(height, width)
        if self._tile is None and not whole:
            pixels = budget(self.device) // max(self._bytes_per_pixel, 1)
            if height * width > pixels:  # Only then is the overlap worth to be measured.
                tile = fitting_tile(height, width, self._overlap, pixels)
        return min(tile, self._largest or tile)

    def _run_tiles(
        self, source: Raster, target: Raster, tile: int, progress: Callable[[float], None]
    ) -> None:
        """Enlarge a raster row of tiles by row of tiles, with smaller ones where it has to be."""
        height, width, _ = source.shape
        top = 0
        # No gradients, but not inference_mode: BasicSR's EDSR and RCAN keep a tensor made in
        # forward (``self.mean``), and an inference tensor must not get into a later training step.
        with evaluating(self.network):
            while top < height:
                scarce: list[str] = []
                with noticing_scarcity(scarce):
                    top = self._run_row(source, target, top, self._round_up(tile), progress)
                if scarce:
                    tile = self._smaller(min(tile, max(height, width)), scarce[0])

    def _smaller(self, tile: int, problem: str) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tile <= self.multiple:
            raise LsfdError(f"the memory does not suffice even for the smallest tiles: {problem}")
        self._largest = max(tile // 2, self.multiple)
        return self._largest

    def _run_row(
        self,
        source: Raster,
        target: Raster,
        first: int,
        tile: int,
        progress: Callable[[float], None],
    ) -> int:
        """Run the tiles that lie beside each other, and return where the next ones begin."""
        height, width, bands = source.shape
        overlap = 0
        if tile < height or tile < width:
            overlap = self._overlap + (self._round_up(REACH) if bands in (2, 4) else 0)
        top, bottom, *rows = next(spans(first, height, tile, overlap))
        for left, right, *columns in spans(0, width, tile, overlap):
            enlarged = self._run(source.read(*rows, *columns))
            inner = enlarged[
                :,
                :,
                (top - rows[0]) * self.scale : (bottom - rows[0]) * self.scale,
                (left - columns[0]) * self.scale : (right - columns[0]) * self.scale,
            ]
            target.write(top * self.scale, left * self.scale, to_pixels(inner, target.dtype))
            progress((top * width + (bottom - top) * right) / (height * width))
        return bottom

    def _run(self, pixels: NDArray[Any]) -> Tensor:
        """Return pixels enlarged, as 1 x C x H x W in 0..1."""
        if pixels.shape[2] in (2, 4):
            pixels = spread_colours(pixels)
        dtype = self._dtype if pixels.dtype == np.uint8 else self._deep_dtype
        return self._run_planes(to_planes(pixels, self.device), dtype)

    def _run_planes(self, planes: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Return N x C x h x w enlarged, computed in a number format."""
        height, width = planes.shape[2:]

        def network(lq: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                return self._checked(lq, self.network(lq))

        run = self_ensemble(network) if self._ensemble else network
        enlarged = enlarge_planes(filled_up(planes, self.multiple), run, self.scale)
        return enlarged[:, :, : height * self.scale, : width * self.scale]

    def _checked(self, lq: Tensor, output: Tensor) -> Tensor:
        """Return a network's output, or raise an error if it is no image."""
        count, channels, height, width = lq.shape
        if tuple(output.shape) != (count, channels, height * self.scale, width * self.scale):
            raise LsfdError(
                f"the network turns an input of shape {tuple(lq.shape)} into "
                f"{tuple(output.shape)}, which is not an image enlarged x{self.scale}"
            )
        if not torch.isfinite(output.sum(dtype=torch.float32)):  # No copy of the output is made.
            raise LsfdError(
                "the network's output holds NaN or infinity: its weights are damaged, or its "
                "values do not fit the number format (use precision 'fp32')"
            )
        return output

    def _round_up(self, pixels: int) -> int:
        return math.ceil(pixels / self.multiple) * self.multiple


def _nobody(share: float) -> None:
    """Take note of nothing."""
