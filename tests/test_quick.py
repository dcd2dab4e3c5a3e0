"""Quick modules give the results and gradients of those that they stand in for."""

from __future__ import annotations

import lsfd.compat  # noqa: F401

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn

from lsfd.networks.quick import QuickPixelShuffle, QuickResidualBlock, use_quick_modules


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("gradient_layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("factor", [2, 3])
def test_values_and_gradients_are_pytorchs(
    layout: torch.memory_format, gradient_layout: torch.memory_format, factor: int
) -> None:
    x = torch.randn(2, 5 * factor**2, 4, 6).contiguous(memory_format=layout).requires_grad_()
    results = [module(x) for module in (nn.PixelShuffle(factor), QuickPixelShuffle(factor))]
    gradient = torch.randn_like(results[0]).contiguous(memory_format=gradient_layout)
    gradients = [torch.autograd.grad(result, x, gradient)[0] for result in results]
    for pair in (results, gradients):
        torch.testing.assert_close(pair[1], pair[0], rtol=0, atol=0)
    # What comes next on the way back finds its own layout.
    assert gradients[1].is_contiguous(memory_format=torch.channels_last) or (
        layout is torch.contiguous_format
    )


def gradients_of(network: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(network(x).square().sum(), list(network.parameters())))


@pytest.mark.parametrize("res_scale", [1, 0.1])
@pytest.mark.parametrize("upscale", [2, 3])
def test_edsr_keeps_weights_results_and_gradients(res_scale: float, upscale: int) -> None:
    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=8, num_block=2, upscale=upscale, res_scale=res_scale)
    network = network.to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before, slopes, names = network(x), gradients_of(network, x), list(network.state_dict())
    use_quick_modules(network)
    kinds = [type(module) for module in network.modules()]
    assert QuickPixelShuffle in kinds and nn.PixelShuffle not in kinds
    assert (QuickResidualBlock in kinds) == (res_scale == 1)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)
    torch.testing.assert_close(gradients_of(network, x), slopes, rtol=0, atol=0)
