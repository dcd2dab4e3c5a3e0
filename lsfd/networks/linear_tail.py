"""EDSR's upsampler and last convolution as one convolution, without PyTorch.

Between the last sum and the output EDSR has no nonlinearity, only convolutions and pixel shuffles.
On the grid of the input a convolution behind a shuffle by r is one with r^2 times the channels on
both sides, and two convolutions in a row are one whose kernel is the convolution of theirs. So all
of it together is

    N x C x h x w -> N x 3 s^2 x h x w, kernel 5 x 5, and one pixel shuffle by s.

For EDSR 32 x 8 at x4 that is a fifth of the tail's multiply-adds. It is the same function wherever
no layer in between pads: everywhere but on a border of one input pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Layer: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""Kernel, out x in x k x k, and bias of a convolution."""

_SIDE = 5


def one_convolution(layers: Sequence[Layer], steps: Sequence[int]) -> Layer:
    """Return the convolution that layers with a shuffle behind each but the last make together.

    Args:
        layers: kernels of 3 x 3.
        steps: by how much each shuffle enlarges; one for each layer but the last.

    Returns:
        Kernel and bias in float32; the channels are ordered for one shuffle by all steps.
    """
    kernel, bias = (part.astype(np.float64) for part in layers[0])
    for number, (next_kernel, next_bias) in enumerate(layers[1:], 1):
        coarse = next_kernel.astype(np.float64)
        for step in reversed(steps[:number]):
            coarse = _on_coarser_grid(coarse, step)
        repeated = np.repeat(next_bias, len(coarse) // len(next_bias))
        bias = repeated + coarse.sum((2, 3)) @ bias
        kernel = _in_a_row(kernel, coarse)
    cut = (kernel.shape[-1] - _SIDE) // 2  # The rest is zero: no step looks a whole pixel aside.
    kernel = kernel[:, :, cut : cut + _SIDE, cut : cut + _SIDE]
    order = shuffled_at_once(len(layers[-1][1]), steps)
    with np.errstate(over="ignore"):  # Infinity shows in the result, which is looked at.
        return kernel[order].astype(np.float32), bias[order].astype(np.float32)


def costs_less(layers: Sequence[Layer], steps: Sequence[int]) -> bool:
    """Whether :func:`one_convolution` has fewer multiply-adds than the layers."""
    area, separate = 1, 0
    for (kernel, _), step in zip(layers, (*steps, 1), strict=True):
        separate += area * kernel.size
        area *= step**2
    return _SIDE**2 * layers[0][0].shape[1] * len(layers[-1][1]) * area < separate


def _on_coarser_grid(kernel: NDArray[Any], step: int) -> NDArray[Any]:
    """Return a 3 x 3 kernel for what is not shuffled yet, and gives what is not shuffled yet."""
    out, given = kernel.shape[:2]
    coarse = np.zeros((out, step, step, given, step, step, 3, 3))
    for row, column, y, x in np.ndindex(step, step, 3, 3):
        cell_y, inner_y = divmod(row + y - 1, step)
        cell_x, inner_x = divmod(column + x - 1, step)
        coarse[:, row, column, :, inner_y, inner_x, cell_y + 1, cell_x + 1] = kernel[:, :, y, x]
    return coarse.reshape(out * step**2, given * step**2, 3, 3)


def _in_a_row(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return the kernel of one convolution after another."""
    side, added = first.shape[-1], second.shape[-1] - 1
    both = np.zeros((len(second), first.shape[1], side + added, side + added))
    for y, x in np.ndindex(*second.shape[2:]):
        both[:, :, y : y + side, x : x + side] += np.tensordot(second[:, :, y, x], first, 1)
    return both


def shuffled_at_once(colours: int, steps: Sequence[int]) -> NDArray[np.int64]:
    """Return which channels, of those for one shuffle after another, one shuffle takes.

    Args:
        colours: of the result.
        steps: by how much each shuffle enlarges, the first one first.
    """
    # There: colour, row and column of the finest step, ..., row and column of the first.
    sides = [side for step in reversed(steps) for side in (step, step)]
    rows = [2 * place + 1 for place in reversed(range(len(steps)))]
    places = np.arange(colours * int(np.prod(sides))).reshape(colours, *sides)
    return places.transpose(0, *rows, *(row + 1 for row in rows)).ravel()
