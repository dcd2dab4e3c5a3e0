"""How far networks see, against what their layers say."""

from __future__ import annotations

import lsfd.compat  # noqa: F401

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from basicsr.archs.swinir_arch import SwinIR
from torch import Tensor, nn

from lsfd.networks.reach import FARTHEST, reach


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize(("scale", "upsampler"), [(2, 2), (3, 2), (4, 2)])
def test_an_edsr_sees_as_far_as_its_convolutions_add_up_to(
    blocks: int, scale: int, upsampler: int
) -> None:
    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=4, num_block=blocks, upscale=scale)
    # Head, body and its tail; the convolution before the first shuffle, and what is left of those
    # on larger grids, together less than a pixel.
    assert reach(network) == 1 + 2 * blocks + 1 + upsampler


def test_each_direction_counts() -> None:
    for kernel, farthest in (((1, 9), 4), ((7, 1), 3), ((1, 1), 0)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        assert reach(nn.Conv2d(3, 3, kernel, padding=padding)) == farthest
    ahead = nn.Sequential(nn.ZeroPad2d((0, 5, 0, 0)), nn.Conv2d(3, 3, (1, 6)))
    assert reach(ahead) == 5


def test_a_network_with_means_over_the_image_sees_everything() -> None:
    assert reach(RCAN(3, 3, num_feat=4, num_group=1, num_block=1, squeeze_factor=2)) is None


def test_what_sees_too_far_counts_as_everything() -> None:
    for side, expected in ((FARTHEST, FARTHEST), (FARTHEST + 1, None)):
        network = nn.Conv2d(3, 3, (1, 2 * side + 1), padding=(0, side))
        assert reach(network) == expected


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_windows_are_seen_as_a_whole() -> None:
    network = SwinIR(
        upscale=2, img_size=16, window_size=8, depths=[1], embed_dim=12, num_heads=[2],
        mlp_ratio=2, upsampler="pixelshuffledirect",
    )  # fmt: skip
    found = reach(network)
    # Whatever is in the window, and convolutions before and behind.
    assert found is not None and 2 <= found <= 16


def test_what_cannot_be_measured_counts_as_everything() -> None:
    class Picky(nn.Module):
        def forward(self, lq: Tensor) -> Tensor:
            if lq.shape[2] < 8:
                raise RuntimeError("too small")
            return lq

    assert reach(Picky()) is None


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert reach(network) == 1
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.backends.mkldnn.enabled
