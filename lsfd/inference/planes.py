"""Between the pixels of an image and the numbers that a network works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor
from torch.nn import functional

Network = Callable[[Tensor], Tensor]


def to_planes(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """Return pixels of 8 or 16 bits, H x W x C, as 1 x C x H x W in 0..1, float32."""
    # An H x W x C array seen as N x C x H x W already has the channels_last layout.
    if pixels.dtype == np.uint8:
        planes = torch.tensor(np.ascontiguousarray(pixels)).to(device)  # May be read-only.
    else:  # Arithmetic on uint16 tensors is not there for every device.
        planes = torch.from_numpy(pixels.astype(np.float32)).to(device)
    return planes.permute(2, 0, 1)[None].float().div_(np.iinfo(pixels.dtype).max)


def to_pixels(planes: Tensor, dtype: DTypeLike) -> NDArray[Any]:
    """Return 1 x C x H x W in 0..1 as H x W x C pixels, rounded half up and clipped."""
    largest = np.iinfo(dtype).max
    levels = planes[0].float().mul(largest).add_(0.5).floor_().clamp_(0, largest)
    # int32 for 16 bits: torch's uint16 lacks most operations.
    levels = levels.to(torch.uint8 if largest == 255 else torch.int32)
    return np.asarray(levels.permute(1, 2, 0).contiguous().cpu().numpy(), dtype)


def filled_up(planes: Tensor, multiple: int) -> Tensor:
    """Return N x C x h x w, reflected at bottom and right until both sides are multiples."""
    for axis in (2, 3):
        length = planes.shape[axis]
        fill = -length % multiple
        if fill:  # By index, because torch does not reflect farther than an image is wide.
            places = np.pad(np.arange(length), (0, fill), mode="reflect")
            planes = planes.index_select(axis, torch.from_numpy(places).to(planes.device))
    return planes


def enlarge_planes(planes: Tensor, network: Network, scale: int) -> Tensor:
    """Return an image enlarged: colours by the network, transparency by bicubic interpolation.

    Grey goes through the network as three equal channels, whose mean comes back. Interpolation
    keeps what is opaque exactly so, which no network promises.

    Args:
        planes: N x C x h x w; C is 1 (grey), 2 (with alpha), 3 (RGB) or 4 (with alpha).
        network: takes N x 3 x h x w.
        scale: by which it enlarges.
    """
    bands = planes.shape[1]
    if bands == 3:
        return network(planes)
    if bands == 4:
        enlarged = network(planes[:, :3])
    else:
        enlarged = network(planes[:, :1].repeat(1, 3, 1, 1)).float().mean(dim=1, keepdim=True)
    if bands % 2:
        return enlarged
    alpha = functional.interpolate(
        planes[:, -1:], scale_factor=scale, mode="bicubic", antialias=True
    )
    return torch.cat([enlarged.float(), alpha], dim=1)


def self_ensemble(network: Network) -> Network:
    """Return the mean of a network's outputs for an image mirrored and turned in all eight ways."""

    def run(lq: Tensor) -> Tensor:
        total: Tensor | None = None
        for turned in (False, True):
            seen = lq.mT if turned else lq
            for sides in ((), (2,), (3,), (2, 3)):
                output = network(seen.flip(sides)).float().flip(sides)
                output = output.mT if turned else output
                total = output if total is None else total + output
        assert total is not None
        return total / 8

    return run
