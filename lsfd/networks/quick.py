"""Networks that compute the same in less time: what becomes of EDSR and RCAN in training.

Small parts give the same bits. The tail, :mod:`lsfd.networks.quick_tail`, is the same function with
other roundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.archs.arch_util import ResidualBlockNoBN
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from torch import Tensor, nn
from torch.nn import functional

from lsfd.networks.gated_edsr import GatedEDSR
from lsfd.networks.quick_tail import use_quick_tail
from lsfd.networks.slim_edsr import SlimEDSR

_TAIL = ("upsample", "conv_last")
"""Modules that do not run one by one in a quick tail."""


class QuickPixelShuffle(nn.PixelShuffle):
    """What ``nn.PixelShuffle`` does, and its gradient, to the bit.

    PyTorch's own backward pass (2.13, CPU, channels-last) takes a tenth of a small student's
    training step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return N x C/r^2 x rH x rW for N x C x H x W."""
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return _Shuffle.apply(x, self.upscale_factor)
        return super().forward(x)


class _Shuffle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return functional.pixel_shuffle(x, factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        r = ctx.factor
        count, channels, height, width = gradient.shape
        size = count, height // r, width // r
        # In two copies, neither of which jumps about in memory: whole pixels are brought together
        # first, and then the channels of each group of r x r pixels are interleaved.
        rows = gradient.permute(0, 2, 3, 1).reshape(*size[:2], r, size[2], r, channels)
        groups = rows.transpose(2, 3).reshape(-1, r * r, channels)
        cells = groups.transpose(1, 2).reshape(*size, channels * r * r)
        return cells.permute(0, 3, 1, 2), None


class QuickResidualBlock(ResidualBlockNoBN):
    """A residual block with ``res_scale: 1``, without the multiplication by 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of ``x``, N x C x H x W."""
        return x + self.conv2(self.relu(self.conv1(x)))


def lie_in_tail(taps: Sequence[str]) -> bool:
    """Whether features are wanted that a quick tail does not compute.

    Without one a network's output differs in the last bits.
    """
    return any(tap.startswith(_TAIL) for tap in taps)


def use_quick_modules(network: nn.Module, taps: Sequence[str] = ()) -> None:
    """Turn modules below a network into quick ones; names and weights stay the same.

    Args:
        network: what is going to be trained, or to teach.
        taps: names of modules whose features are wanted.
    """
    for module in network.modules():
        if type(module) is nn.PixelShuffle:
            module.__class__ = QuickPixelShuffle
        elif type(module) is ResidualBlockNoBN and module.res_scale == 1:
            module.__class__ = QuickResidualBlock
    if type(network) in (EDSR, GatedEDSR, RCAN, SlimEDSR) and not lie_in_tail(taps):
        upsample, conv_last = network.upsample, network.conv_last
        assert isinstance(upsample, nn.Sequential) and isinstance(conv_last, nn.Conv2d)
        use_quick_tail(upsample, conv_last)
