"""Quick modules give the results and gradients of those that they stand in for."""

from __future__ import annotations

from copy import deepcopy

import lsfd.compat  # noqa: F401

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lsfd.networks.quick import QuickPixelShuffle, QuickResidualBlock, use_quick_modules
from lsfd.networks.taps import TappedNetwork


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


def edsr(upscale: int) -> EDSR:
    """A network in double precision whose tail matters."""
    torch.manual_seed(upscale)
    network = EDSR(3, 3, num_feat=32, num_block=1, upscale=upscale, img_range=1.0).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return network


def with_quick_tail(network: nn.Module) -> nn.Module:
    copy = deepcopy(network)
    use_quick_modules(copy)
    assert type(copy.conv_last) is not nn.Conv2d
    return copy


@pytest.mark.parametrize("upscale", [2, 3, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(9, 11), (6, 6), (7, 30), (5, 12), (1, 1)])
def test_a_quick_tail_is_the_same_function(upscale: int, height: int, width: int) -> None:
    network = edsr(upscale)
    quick = with_quick_tail(network)
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(quick(x), network(x), rtol=1e-12, atol=1e-12)
    slopes = gradients_of(network, x)
    torch.testing.assert_close(gradients_of(quick, x), slopes, rtol=1e-10, atol=1e-10)
    assert list(quick.state_dict()) == list(network.state_dict())


def test_rcan_is_the_same_function() -> None:
    torch.manual_seed(0)
    network = RCAN(3, 3, num_feat=32, num_group=1, num_block=1, upscale=2).double()
    quick = with_quick_tail(network)
    x = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(quick(x), network(x), rtol=1e-12, atol=1e-12)


def test_a_quick_tail_takes_few_operations() -> None:
    network, x = edsr(4).float(), torch.rand(1, 3, 48, 48)
    counts = []
    for each in (network, with_quick_tail(network)):
        with FlopCounterMode(display=False) as counter:
            each(x)
        counts.append(counter.get_total_flops())
    body = 2 * 48 * 48 * 9 * 32 * (3 + 3 * 32)
    assert counts[1] - body < (counts[0] - body) / 2


def test_a_copy_of_a_quick_network_has_layers_of_its_own() -> None:
    network = with_quick_tail(edsr(4))
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    before, copy = network(x), deepcopy(network)
    for parameter in copy.parameters():
        nn.init.zeros_(parameter)
    assert not torch.equal(copy(x), before)
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)


def test_tapped_tails_stay_as_they_are() -> None:
    network = edsr(4)
    use_quick_modules(network, ["body.0", "upsample.1"])
    assert type(network.conv_last) is nn.Conv2d
    output, features = TappedNetwork(network, ["upsample.1"])(torch.rand(1, 3, 8, 8).double())
    assert features["upsample.1"].shape == (1, 32, 16, 16) and output.shape == (1, 3, 32, 32)


def test_a_narrow_tail_stays_as_it_is() -> None:
    network = EDSR(3, 3, num_feat=8, num_block=1, upscale=4)
    use_quick_modules(network)
    assert type(network.conv_last) is nn.Conv2d
