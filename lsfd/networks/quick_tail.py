"""The upsampler and last convolution of EDSR and RCAN, as one convolution and a border.

Behind the last sum there is no nonlinearity, only convolutions of 3 x 3 and pixel shuffles. On the
grid of its input a convolution behind a shuffle by r is a convolution with r^2 times the channels
on both sides, and two convolutions in a row are one whose kernel is the convolution of theirs. So
all of them together are

    N x C x h x w  ->  N x c s^2 x h x w,  kernel 5 x 5,  and one pixel shuffle by s,

for EDSR 64 x 16 at x4 a tenth of the multiply-adds. The kernel is made anew from the layers'
weights in each step, and gradients flow through it to them. It is the same function but on a border
of one input pixel, where the layers in between see the zeros around the image; there they run.

:mod:`lsfd.networks.linear_tail` does it for finished networks, without PyTorch and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.networks.linear_tail import shuffled_at_once

Layers = Sequence[nn.Conv2d]

_NEAR = 3
"""Input pixels from the edge on that the border's result depends on."""


def use_quick_tail(upsample: nn.Sequential, conv_last: nn.Conv2d) -> None:
    """Let ``conv_last`` do the work of both where that is less; names and weights stay.

    Args:
        upsample: convolutions of 3 x 3 with a pixel shuffle behind each.
        conv_last: the convolution of 3 x 3 behind it.
    """
    layers = [layer for layer in upsample if isinstance(layer, nn.Conv2d)]
    shuffles = [layer for layer in upsample if isinstance(layer, nn.PixelShuffle)]
    steps = [shuffle.upscale_factor for shuffle in shuffles]
    if not layers or _cost_at_once(layers, conv_last, steps) > _cost(layers, conv_last, steps) / 3:
        return  # The border costs up to a third, too.
    upsample.__class__ = _Passed
    conv_last.__class__ = _WholeTail
    # Not as modules, which they are elsewhere.
    conv_last.__dict__["before"] = tuple(layers)
    conv_last.__dict__["shuffles"] = tuple(shuffles)


class _Passed(nn.Sequential):
    """An upsampler whose work is done by the last convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class _WholeTail(nn.Conv2d):
    """A last convolution that does the upsampler's work, too."""

    before: tuple[nn.Conv2d, ...]
    shuffles: tuple[nn.PixelShuffle, ...]

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 2 * _NEAR:
            return self._ends(x, None)
        scale = prod(shuffle.upscale_factor for shuffle in self.shuffles)
        middle = self._middle(x, scale)
        rows = self._ends(_both_ends(x, _NEAR, 2), 2)
        columns = self._ends(_both_ends(x, _NEAR, 3), 3)[:, :, scale:-scale]
        middle = torch.cat([columns[..., :scale], middle, columns[..., -scale:]], 3)
        return torch.cat([rows[:, :, :scale], middle, rows[:, :, -scale:]], 2)

    def _middle(self, x: Tensor, scale: int) -> Tensor:
        """Return the result without its border, by one convolution."""
        # The kernel is a product of many small numbers: its making stays in float32.
        with torch.autocast(x.device.type, enabled=False):
            steps = [shuffle.upscale_factor for shuffle in self.shuffles]
            kernel, bias = kernel_of_all([*self.before, self], steps)
        return functional.pixel_shuffle(functional.conv2d(x, kernel, bias, padding=1), scale)

    def _ends(self, x: Tensor, side: int | None) -> Tensor:
        """Return the layers' own result; with a side, for both ends of it, beside each other."""
        right = _NEAR
        for convolution, shuffle in zip(self.before, self.shuffles, strict=True):
            x, right = convolution(x), right - 1
            x = shuffle(x if side is None else _both_ends(x, right, side))
            right *= shuffle.upscale_factor
        return super().forward(x)


def _both_ends(x: Tensor, count: int, side: int) -> Tensor:
    """Return the first and the last rows (``side`` 2) or columns (3) beside each other.

    Where the two meet, a convolution sees the other end instead of what was cut off: there one row
    or column of each end comes out wrong, and is left out from then on.
    """
    length = x.shape[side]
    return torch.cat([x.narrow(side, 0, count), x.narrow(side, length - count, count)], side)


def kernel_of_all(layers: Layers, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return kernel and bias of the convolution that all layers together are.

    Args:
        layers: convolutions with kernels of 3 x 3; a shuffle behind each but the last.
        steps: by how much each shuffle enlarges.

    Returns:
        c s^2 x C x 5 x 5 and c s^2; the channels are in the order of one shuffle by all steps.
    """
    *before, last = layers
    kernel, bias = last.weight, _bias(last)
    # From the finest grid on, where kernels have few channels.
    for layer, step in zip(reversed(before), reversed(steps), strict=True):
        kernel = _on_coarser_grid(kernel, step)
        bias = bias.repeat_interleave(step**2) + kernel.sum((2, 3)) @ _bias(layer)
        kernel = _in_a_row(layer.weight, kernel)
    order = torch.from_numpy(shuffled_at_once(last.out_channels, steps)).to(kernel.device)
    return kernel[order], bias[order]


def _bias(layer: nn.Conv2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias


def _on_coarser_grid(kernel: Tensor, step: int) -> Tensor:
    """Return a kernel for what is not shuffled yet, and gives what is not shuffled yet."""
    out, given, size, _ = kernel.shape
    source, target, side = _places(size, step)
    coarse = kernel.new_zeros(out, given, step**4 * side**2)
    taps = kernel.flatten(2)[:, :, torch.tensor(source, device=kernel.device)]
    coarse = coarse.index_copy(2, torch.tensor(target, device=kernel.device), taps)
    coarse = coarse.view(out, given, step**2, step**2, side, side).transpose(1, 2)
    return coarse.reshape(out * step**2, given * step**2, side, side)


@lru_cache
def _places(size: int, step: int) -> tuple[list[int], list[int], int]:
    """Return for each output pixel of a cell and each tap where the tap lies on the coarser grid.

    That is: the tap, its place among (output pixel, input pixel of a cell, cell), and how many
    cells the coarser kernel has on a side.
    """
    radius = size // 2
    reach = -(-radius // step)
    side = 2 * reach + 1
    source, target = [], []
    for row, column, y, x in product(range(step), range(step), range(size), range(size)):
        cell_y, inner_y = divmod(row + y - radius, step)
        cell_x, inner_x = divmod(column + x - radius, step)
        pixels = (row * step + column) * step**2 + inner_y * step + inner_x
        source.append(y * size + x)
        target.append((pixels * side + cell_y + reach) * side + cell_x + reach)
    return source, target, side


def _in_a_row(first: Tensor, second: Tensor) -> Tensor:
    """Return the kernel of one convolution after another."""
    turned = first.flip(2, 3).transpose(0, 1)
    return functional.conv2d(second, turned, padding=first.shape[-1] - 1)


def _cost(layers: Layers, last: nn.Conv2d, steps: Sequence[int]) -> int:
    """Return the layers' multiply-adds for a pixel of the input."""
    area, cost = 1, 0
    for layer, step in zip((*layers, last), (*steps, 1), strict=True):
        cost += area * layer.weight.numel()
        area *= step**2
    return cost


def _cost_at_once(layers: Layers, last: nn.Conv2d, steps: Sequence[int]) -> int:
    """Return those of the one convolution."""
    return 25 * layers[0].in_channels * last.out_channels * prod(steps) ** 2
