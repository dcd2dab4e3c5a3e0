from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from lsfd.networks.linear_tail import Layer, costs_less, one_convolution


def layers_of(channels: int, inside: int, steps: tuple[int, ...]) -> list[Layer]:
    torch.manual_seed(0)
    widths = [channels, *[inside] * len(steps)]
    made = [inside * step**2 for step in steps] + [3]
    return [
        (torch.randn(out, given, 3, 3).numpy(), torch.randn(out).numpy())
        for out, given in zip(made, widths, strict=True)
    ]


@pytest.mark.parametrize("steps", [(2,), (3,), (2, 2), (2, 2, 2)])
def test_it_is_all_the_layers_but_for_the_border(steps: tuple[int, ...]) -> None:
    layers, features = layers_of(4, 5, steps), torch.randn(1, 4, 7, 9, dtype=torch.float64)
    scale = int(np.prod(steps))
    expected = features
    for number, layer in enumerate(layers):
        kernel, bias = (torch.from_numpy(part).double() for part in layer)
        expected = functional.conv2d(expected, kernel, bias, padding=1)
        if number < len(steps):
            expected = functional.pixel_shuffle(expected, steps[number])
    kernel, bias = (torch.from_numpy(part).double() for part in one_convolution(layers, steps))
    assert kernel.shape == (3 * scale**2, 4, 5, 5)
    whole = functional.pixel_shuffle(functional.conv2d(features, kernel, bias, padding=2), scale)
    inner = (..., slice(scale, -scale), slice(scale, -scale))
    torch.testing.assert_close(whole[inner], expected[inner], rtol=1e-4, atol=1e-3)
    assert not torch.allclose(whole, expected, rtol=1e-2, atol=1e-1)


def test_it_is_not_always_cheaper() -> None:
    assert costs_less(layers_of(32, 32, (2, 2)), (2, 2))
    assert not costs_less(layers_of(64, 1, (2, 2, 2)), (2, 2, 2))
