"""Networks from options: sizes of the papers, every architecture, every mistake named."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network, network_scale

RGB = {"num_in_ch": 3, "num_out_ch": 3}
EDSR_TEACHER = {"type": "EDSR", **RGB, "num_feat": 256, "num_block": 32, "res_scale": 0.1}
EDSR_STUDENT = {"type": "EDSR", **RGB, "num_feat": 64, "num_block": 16}
EDSR_DEEP_STUDENT = {"type": "EDSR", **RGB, "num_feat": 64, "num_block": 32}
RCAN_TEACHER = {"type": "RCAN", **RGB, "num_feat": 64, "num_group": 10, "num_block": 20}
RCAN_STUDENT = {"type": "RCAN", **RGB, "num_feat": 64, "num_group": 10, "num_block": 6}

SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "EDSR": ({"type": "EDSR", **RGB, "num_feat": 8, "num_block": 2, "upscale": 4}, 4),
    "EDSR x8": ({"type": "EDSR", **RGB, "num_feat": 4, "num_block": 1, "upscale": 8}, 8),
    "RCAN": (
        {"type": "RCAN", **RGB, "num_feat": 8, "num_group": 2, "num_block": 2}
        | {"squeeze_factor": 4, "upscale": 3},
        3,
    ),
    "MSRResNet": ({"type": "MSRResNet", "num_feat": 8, "num_block": 2, "upscale": 2}, 2),
    "RRDBNet": ({"type": "RRDBNet", **RGB, "num_feat": 8, "num_block": 2, "num_grow_ch": 4}, 4),
    "RRDBNet x2": (
        {"type": "RRDBNet", **RGB, "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "scale": 2},
        2,
    ),
    "SwinIR": (
        {"type": "SwinIR", "img_size": 32, "window_size": 8, "embed_dim": 12, "upscale": 2}
        | {"depths": [2, 2], "num_heads": [2, 2], "upsampler": "pixelshuffle"},
        2,
    ),
    "SwinIR, window 7": (
        {"type": "SwinIR", "img_size": 28, "window_size": 7, "embed_dim": 12, "upscale": 4}
        | {"depths": [2, 2], "num_heads": [2, 2], "upsampler": "pixelshuffledirect"},
        4,
    ),
    "SRVGGNetCompact": ({"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 2}, 4),
    "SRVGGNetCompact_basicsr": (
        {"type": "SRVGGNetCompact_basicsr", "num_feat": 8, "num_conv": 2, "act_type": "relu"},
        4,
    ),
    "ECBSR": (
        {"type": "ECBSR", **RGB, "num_block": 2, "num_channel": 8, "with_idt": True}
        | {"act_type": "prelu", "scale": 2},
        2,
    ),
    "RIDNet": ({"type": "RIDNet", "in_channels": 3, "mid_channels": 16, "out_channels": 3}, 1),
}


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        (EDSR_TEACHER, (40.73, 43.68, 43.09)),
        (EDSR_STUDENT, (1.37, 1.55, 1.52)),
        (EDSR_DEEP_STUDENT, (2.55, 2.74, 2.70)),
        (RCAN_TEACHER, (15.44, 15.63, 15.59)),
        (RCAN_STUDENT, (5.02, 5.21, 5.17)),
    ],
    ids=["EDSR teacher", "EDSR 16x64", "EDSR 32x64", "RCAN teacher", "RCAN 10x6"],
)
def test_parameter_counts_are_those_of_the_papers(
    options: dict[str, Any], millions: tuple[float, ...]
) -> None:
    for scale, expected in zip((2, 3, 4), millions, strict=True):
        with torch.device("meta"):
            network = build_network({**options, "upscale": scale})
        count = sum(parameter.numel() for parameter in network.parameters())
        assert round(count / 1e6, 2) == expected


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_builds_and_its_scale_is_found(name: str) -> None:
    options, scale = SMALL[name]
    assert network_scale(build_network(options)) == scale


def test_options_are_left_as_they_were() -> None:
    options = {"type": "EDSR", **RGB, "num_feat": 4, "num_block": 1}
    before = copy.deepcopy(options)
    build_network(options)
    assert options == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "EDRS", **RGB}, ["network_t.type", "'EDRS'", "did you mean 'EDSR'"]),
        ({"type": "BasicVSR"}, ["'BasicVSR'", "valid: CheapEDSR, ECBSR, EDSR, "]),
        ({**RGB}, ["network_t.type", "valid: CheapEDSR, ECBSR"]),
        ({"type": ["EDSR"]}, ["network_t.type"]),
        ({"type": "EDSR"}, ["network_t", "num_in_ch, num_out_ch"]),
        ({"type": "EDSR", **RGB, "num_fea": 64}, ["network_t.num_fea", "'num_feat'"]),
        ({"type": "SwinIR", "windowsize": 8}, ["network_t.windowsize", "'window_size'"]),
        ({"type": "EDSR", **RGB, "num_feat": "64"}, ["network_t.num_feat", "whole number", "'64'"]),
        ({"type": "EDSR", **RGB, "num_feat": 64.0}, ["network_t.num_feat", "whole number"]),
        ({"type": "EDSR", **RGB, "num_block": True}, ["network_t.num_block", "True (bool)"]),
        ({"type": "EDSR", **RGB, "num_block": 0}, ["network_t.num_block", "not 0"]),
        ({"type": "EDSR", **RGB, "num_block": -1}, ["network_t.num_block", "not -1"]),
        ({"type": "EDSR", **RGB, "num_feat": 10**9}, ["network_t.num_feat", "4096"]),
        ({"type": "EDSR", **RGB, "res_scale": "0.1"}, ["network_t.res_scale", "finite number"]),
        ({"type": "EDSR", **RGB, "img_range": float("nan")}, ["network_t.img_range", "finite"]),
        ({"type": "EDSR", **RGB, "rgb_mean": 0.4}, ["network_t.rgb_mean", "list of numbers"]),
        ({"type": "EDSR", **RGB, "rgb_mean": [0.4, 0.4]}, ["network_t", "EDSR cannot be built"]),
        ({"type": "EDSR", **RGB, "upscale": 5}, ["EDSR cannot be built", "scale 5"]),
        ({"type": "EDSR", "num_in_ch": 1, "num_out_ch": 3}, ["network_t.num_in_ch", "RGB"]),
        ({"type": "RCAN", **RGB, "num_feat": 8}, ["layer without channels", "attention"]),
        ({"type": "SwinIR", "depths": [6, "6"]}, ["network_t.depths", "list of counts"]),
        ({"type": "SwinIR", "ape": 1}, ["network_t.ape", "true or false"]),
        ({"type": "SwinIR", "norm_layer": "LayerNorm"}, ["network_t.norm_layer", "left out"]),
        ({"type": "SRVGGNetCompact", "act_type": 1}, ["network_t.act_type", "a text"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_a_mistake_is_named(options: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(LsfdError) as caught:
        build_network(options, where="network_t")
    for part in said:
        assert part in str(caught.value)


def test_options_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(LsfdError, match="network_g must be a mapping"):
        build_network("EDSR")  # type: ignore[arg-type]


def test_the_trial_leaves_no_trace() -> None:
    network = build_network(SMALL["EDSR"][0])
    network.body[0].eval()
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    network_scale(network)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    "network",
    [
        nn.Conv2d(3, 4, 3, padding=1),  # 4 channels out.
        nn.Conv2d(3, 3, 3),  # Loses a border.
        nn.Conv2d(4, 3, 1),  # Cannot take an image.
        nn.Upsample(scale_factor=(2, 3)),
    ],
)
def test_scale_of_what_is_no_super_resolution_network(network: nn.Module) -> None:
    with pytest.raises(LsfdError):
        network_scale(network)
    assert network_scale(network, default=4) == 4


@pytest.mark.parametrize("name", ["EDSR", "RCAN", "SwinIR"])
def test_copies_compute_the_same(name: str) -> None:
    network = build_network(SMALL[name][0]).eval()
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other(image), expected)
