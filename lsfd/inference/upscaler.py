"""A network as a function from an image to a larger image."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.imaging.raster import Raster
from lsfd.imaging.transparency import spread_colours
from lsfd.inference.device import autocast_dtype, pick_device
from lsfd.inference.footprint import bytes_per_pixel
from lsfd.inference.memory import budget
from lsfd.inference.planes import enlarge_planes, filled_up, self_ensemble, to_pixels, to_planes
from lsfd.inference.tiled import TRANSPARENT, Progress, TiledUpscaler
from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.reach import reach
from lsfd.networks.trial import evaluating, size_multiple

WHOLE_IMAGE_PIXELS = 8_000_000
"""Arrays whose output has no more pixels than this are never cut into tiles unasked.

So scores do not depend on a machine's memory, whatever the network. EDSR with 64 channels needs
about 700 bytes for each output pixel: some 5 GB for as many as this.
"""


class NotFiniteError(LsfdError):
    """A network's output holds NaN or infinity."""


class Upscaler(TiledUpscaler):
    """Runs a PyTorch network on one image at a time, whole or in tiles.

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
        super().__init__(scale, size_multiple(network), tile, tile_overlap)
        self.device = device if isinstance(device, torch.device) else pick_device(device)
        if isinstance(network, OpaqueNetwork):
            self.device = torch.device("cpu")  # Exported networks run there, in their own runtime.
        self.network = network.to(self.device)
        self._dtype = autocast_dtype(precision, self.device)
        self._deep_dtype = None if precision == "auto" else self._dtype
        self._ensemble = ensemble

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image enlarged.

        Args:
            image: uint8, H x W x 3, RGB.

        Returns:
            uint8, sH x sW x 3, RGB; values rounded half up and clipped to 0..255.

        Raises:
            LsfdError: not such an image, or the network does not enlarge by ``scale``;
                :class:`NotFiniteError`: its output is not finite.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise LsfdError(
                f"an image to upscale is uint8 H x W x 3, not {image.dtype} of shape {image.shape}"
            )
        height, width, _ = image.shape
        result = np.empty((height * self.scale, width * self.scale, 3), np.uint8)
        source, target = Raster.from_array(image), Raster.from_array(result)
        if self._tile is None and height * width * self.scale**2 <= WHOLE_IMAGE_PIXELS:
            self._run_tiles(source, target, max(height, width), lambda share: None)
        else:
            self.enlarge(source, target)
        return result

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

    def _sees(self) -> int | None:
        return self._reach

    def _pixels_at_once(self) -> int:
        return budget(self.device) // max(self._bytes_per_pixel, 1)

    def _run_tiles(self, source: Raster, target: Raster, tile: int, progress: Progress) -> None:
        # No gradients, but not inference_mode: BasicSR's EDSR and RCAN keep a tensor made in
        # forward (``self.mean``), and an inference tensor must not get into a later training step.
        with evaluating(self.network):
            super()._run_tiles(source, target, tile, progress)

    def _smaller(self, tile: int, problem: str) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return super()._smaller(tile, problem)

    def _run(
        self, pixels: NDArray[Any], rows: slice, columns: slice, dtype: DTypeLike
    ) -> NDArray[Any]:
        if pixels.shape[2] in TRANSPARENT:
            pixels = spread_colours(pixels)
        computed_in = self._dtype if pixels.dtype == np.uint8 else self._deep_dtype
        enlarged = self._run_planes(to_planes(pixels, self.device), computed_in)
        return to_pixels(enlarged[:, :, rows, columns], dtype)

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
            if not lq.isfinite().all():
                raise NotFiniteError("the image holds NaN or infinity; give values in 0..1")
            raise NotFiniteError(
                "the network's output holds NaN or infinity: its weights are damaged, or its "
                "values do not fit the number format (use precision 'fp32')"
            )
        return output
