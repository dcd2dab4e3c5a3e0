"""EDSR with widths of its own: equal to EDSR at full width, smaller below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network, network_scale, sr_networks
from lsfd.networks.slim_edsr import SlimEDSR, as_slim
from lsfd.networks.stages import auto_taps
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.networks.taps import TappedNetwork, resolve_taps

RGB = {"num_in_ch": 3, "num_out_ch": 3}
EDSR = {"type": "EDSR", **RGB, "num_feat": 8, "num_block": 6, "upscale": 2, "res_scale": 0.5}
SLIM = {
    "type": "SlimEDSR",
    **RGB,
    "num_feat": 8,
    "block_widths": [3, 8, 1],
    "upsample_width": 5,
    "upscale": 4,
}


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def pair(**options: Any) -> tuple[nn.Module, nn.Module]:
    """An EDSR, and the SlimEDSR with its weights."""
    edsr = build_network({**EDSR, **options})
    slim = build_network(as_slim({**EDSR, **options}))
    slim.load_state_dict(edsr.state_dict(), strict=True)
    return edsr, slim


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upscale": 3},
        {"upscale": 4},
        {"upscale": 8},
        {"img_range": 1.0, "rgb_mean": [0.5, 0.4, 0.3]},
    ],
)
def test_at_full_width_it_is_edsr_bit_for_bit(options: dict[str, Any]) -> None:
    edsr, slim = pair(**options)
    x = image(2, 3, 11, 9)
    assert torch.equal(slim(x), edsr(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(slim(x), edsr(x))


def test_at_full_width_it_has_edsrs_gradients() -> None:
    edsr, slim = pair()
    x = image(2, 3, 11, 9)
    for network in (edsr, slim):
        network(x).square().mean().backward()
    for first, second in zip(edsr.parameters(), slim.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad)


def test_what_edsrs_options_leave_out_is_edsrs_default() -> None:
    edsr, slim = build_network({"type": "EDSR", **RGB}), build_network(as_slim({**RGB}))
    slim.load_state_dict(edsr.state_dict(), strict=True)
    x = image(1, 3, 5, 6)
    assert torch.equal(slim(x), edsr(x))


def test_taps_are_found_and_hold_what_edsrs_hold() -> None:
    edsr, slim = pair()
    taps = auto_taps(edsr)
    assert auto_taps(slim) == taps == ["body.1", "body.3", "conv_after_body"]
    x = image(1, 3, 12, 10)
    expected, found = TappedNetwork(edsr, taps)(x)[1], TappedNetwork(slim, taps)(x)[1]
    assert all(torch.equal(found[name], expected[name]) for name in taps)
    small = build_network(SLIM)
    assert [one.student for one in resolve_taps(small, edsr, "auto")] == [
        "body.0",
        "body.1",
        "conv_after_body",
    ]


def test_the_cost_is_that_of_its_convolutions() -> None:
    network = build_network(SLIM)
    inner = 3 + 8 + 1
    body = 9 * 8 * 2 * inner + inner + 3 * 8
    tail = 9 * 8 * 20 + 20 + 9 * 5 * 20 + 20 + 9 * 5 * 3 + 3
    assert count_parameters(network) == (9 * 3 * 8 + 8) + body + (9 * 8 * 8 + 8) + tail
    pixels = 7 * 6
    products = 9 * (3 * 8 + 2 * 8 * inner + 8 * 8 + 8 * 20 + 4 * 5 * 20 + 16 * 5 * 3)
    assert multiply_adds(network, 7, 6) == pixels * products


def test_without_blocks_it_still_enlarges() -> None:
    network = build_network({**SLIM, "block_widths": []})
    assert network_scale(network) == 4
    x = image(1, 3, 6, 5)
    shallow = network.conv_first(255 * (x - network.mean))
    tail = network.conv_last(network.upsample(network.conv_after_body(shallow) + shallow))
    torch.testing.assert_close(network(x), tail / 255 + network.mean)


def test_its_file_describes_it(tmp_path: Path) -> None:
    network = build_network(SLIM).eval()
    path = tmp_path / "slim.safetensors"
    save_student(path, network, StudentCard(architecture=SLIM, scale=4))
    loaded, card = read_student(path)
    assert isinstance(loaded, SlimEDSR) and card.architecture == SLIM
    x = image(1, 3, 8, 8)
    assert torch.equal(loaded(x), network(x))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"upscale": 5}, "upscale: must be 2, 3, 4, 8 or 16, not 5"),
        ({"upscale": 1}, "upscale: must be 2, 3, 4, 8 or 16, not 1"),
        ({"block_widths": 8}, "block_widths: must be a list of counts"),
        ({"block_widths": [8, 0]}, "block_widths: must be a list of counts"),
        ({"upsample_width": 0}, r"upsample_width: must be a whole number in 1\.\.4096 or nothing"),
        ({"upsample_width": 2.5}, r"upsample_width: must be a whole number in 1\.\.4096"),
        ({"block_width": [8]}, "did you mean 'block_widths'"),
    ],
)
def test_mistakes_get_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LsfdError, match=sentence):
        build_network({**SLIM, **options})


def test_it_is_known_by_its_name() -> None:
    assert sr_networks()["SlimEDSR"] is SlimEDSR
