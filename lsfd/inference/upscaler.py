"""A network as a function from an 8-bit image to a larger 8-bit image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lsfd.errors import LsfdError
from lsfd.inference.device import autocast_dtype, pick_device
from lsfd.networks.trial import evaluating, size_multiple

WHOLE_IMAGE_PIXELS = 8_000_000
"""Outputs with more pixels than this are made in tiles even when no tile size is given.

EDSR with 64 channels needs about 700 bytes for each output pixel: some 5 GB for as many as this.
"""

AUTO_TILE = 2048
"""The side of such a tile, in output pixels."""


class Upscaler:
    """Runs a network on one image at a time.

    With ``tile``, the input is cut into tiles that are run one after another, each with
    ``tile_overlap`` pixels of its surroundings, which are cut off from the result: the memory
    needed depends on the tile instead of the image. When the overlap is at least as far as the
    network sees to one side, the result is that of the whole image. With less, tiles differ near
    their edges: by one grey level at most for an EDSR of 16 blocks with the default overlap. A
    network that takes means over the whole image (RCAN's channel attention) takes them over each
    tile.

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
            :func:`~lsfd.inference.device.autocast_dtype`.
        tile: side of a tile in input pixels; None: the whole image at once, or tiles of
            ``AUTO_TILE`` output pixels when the output has more than ``WHOLE_IMAGE_PIXELS``.
        tile_overlap: input pixels of surroundings on each side of a tile.

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
        tile_overlap: int = 16,
    ) -> None:
        if tile is not None and tile < 1:
            raise LsfdError(f"a tile has at least 1 pixel, not {tile}; leave it out for none")
        if tile_overlap < 0:
            raise LsfdError(f"tile_overlap must be 0 or more pixels, not {tile_overlap}")
        self.device = device if isinstance(device, torch.device) else pick_device(device)
        self.scale = scale
        self.network = network.to(self.device)
        self._dtype = autocast_dtype(precision, self.device)
        self._tile = tile
        self._overlap = tile_overlap
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
        fill = self._round_up(height) - height, self._round_up(width) - width
        padded = np.pad(image, ((0, fill[0]), (0, fill[1]), (0, 0)), mode="reflect")
        tile = self._tile
        if tile is None and height * width * self.scale**2 > WHOLE_IMAGE_PIXELS:
            tile = AUTO_TILE // self.scale
        # No gradients, but not inference_mode: BasicSR's EDSR and RCAN keep a tensor made in
        # forward (``self.mean``), and an inference tensor must not get into a later training step.
        with evaluating(self.network):
            result = self._run(padded) if tile is None else self._run_tiles(padded, tile)
        return result[: height * self.scale, : width * self.scale]

    def _run_tiles(self, image: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
        """Return the enlarged image, computed tile by tile."""
        scale = self.scale
        tile, overlap = self._round_up(tile), self._round_up(self._overlap)
        height, width, _ = image.shape
        result = np.empty((height * scale, width * scale, 3), np.uint8)
        for top, bottom, outer_top, outer_bottom in _spans(height, tile, overlap):
            for left, right, outer_left, outer_right in _spans(width, tile, overlap):
                enlarged = self._run(image[outer_top:outer_bottom, outer_left:outer_right])
                result[top * scale : bottom * scale, left * scale : right * scale] = enlarged[
                    (top - outer_top) * scale : (bottom - outer_top) * scale,
                    (left - outer_left) * scale : (right - outer_left) * scale,
                ]
        return result

    def _round_up(self, pixels: int) -> int:
        return math.ceil(pixels / self.multiple) * self.multiple

    def _run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the enlarged image, computed in one go."""
        height, width, _ = image.shape
        # An H x W x 3 array seen as N x 3 x H x W already has the channels_last layout.
        lq = torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        lq = lq.permute(2, 0, 1)[None].float().div_(255)
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            output = self.network(lq)
        expected = (1, 3, height * self.scale, width * self.scale)
        if tuple(output.shape) != expected:
            raise LsfdError(
                f"the network turns an input of shape {tuple(lq.shape)} into "
                f"{tuple(output.shape)}, which is not an image enlarged x{self.scale}"
            )
        if not torch.isfinite(output).all():
            raise LsfdError(
                "the network's output holds NaN or infinity: its weights are damaged, or its "
                "values do not fit the number format (use precision 'fp32')"
            )
        levels = output[0].float().mul(255).add_(0.5).floor_().clamp_(0, 255)
        return np.asarray(levels.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy())


def _spans(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a side into tiles: start and end of each, without and with its surroundings."""
    for start in range(0, length, tile):
        end = min(start + tile, length)
        yield start, end, max(start - overlap, 0), min(end + overlap, length)
