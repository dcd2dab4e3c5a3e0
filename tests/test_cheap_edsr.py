"""EDSR with depthwise-separable convolutions: its size, its names, its way through the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lsfd.config.load import options_from_dict
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network, network_scale
from lsfd.networks.cheap_edsr import CheapEDSR
from lsfd.networks.stages import auto_taps
from lsfd.networks.student_file import read_student
from lsfd.training.distributed import Processes
from lsfd.training.run import Run

SIZES = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 12, "num_block": 3, "upscale": 4}
FULL = {"type": "EDSR", **SIZES}
CHEAP = {"type": "CheapEDSR", **SIZES}


def test_each_body_convolution_has_9c_and_c_squared_weights_instead_of_9c_squared() -> None:
    full, cheap = build_network(FULL), build_network(CHEAP)
    c, convolutions = 12, 6
    saved = 9 * c * c - (9 * c + c * c) - c  # The depthwise half has a bias of its own.
    assert count_parameters(full) - count_parameters(cheap) == convolutions * saved
    pixels = 20 * 10
    saved = convolutions * (9 * c * c - 9 * c - c * c) * pixels
    assert multiply_adds(full, 20, 10) - multiply_adds(cheap, 20, 10) == saved


def test_outside_the_body_names_and_shapes_are_edsrs() -> None:
    full, cheap = (build_network(options).state_dict() for options in (FULL, CHEAP))

    def outside(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
        return {name: v.shape for name, v in state.items() if not name.startswith("body.")}

    assert outside(full) == outside(cheap)


def test_a_separable_convolution_is_the_full_one_that_its_halves_multiply_to() -> None:
    torch.manual_seed(0)
    conv = build_network(CHEAP).body[0].conv1
    full = torch.nn.Conv2d(12, 12, 3, 1, 1, bias=False)
    kernel = conv.pointwise.weight * conv.depthwise.weight.transpose(0, 1)
    full.weight = torch.nn.Parameter(kernel)
    x = torch.rand(2, 12, 7, 5)
    constant = conv.pointwise(conv.depthwise.bias.view(1, -1, 1, 1))
    torch.testing.assert_close(conv(x), full(x) + constant)


def test_scale_and_taps_are_found() -> None:
    network = build_network(CHEAP)
    assert network_scale(network) == 4
    assert auto_taps(network) == auto_taps(build_network(FULL))


def test_it_is_trained_and_saved(run_options: Callable[..., dict[str, Any]]) -> None:
    options = run_options(network_g={**CHEAP, "upscale": 2}, train={"total_iter": 2})
    finished = Run(options_from_dict(options), Processes())
    assert finished.go(auto_resume=False) == 0
    student, card = read_student(Path(finished.folder.student))
    assert isinstance(student, CheapEDSR) and card.architecture["type"] == "CheapEDSR"
