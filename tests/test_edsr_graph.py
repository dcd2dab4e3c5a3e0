from __future__ import annotations

from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lsfd.networks.build import build_network
from lsfd.networks.card import StudentCard
from lsfd.networks.reach import reach
from lsfd.networks.student_file import save_student

pytest.importorskip("openvino", reason="needs openvino (pip install lsfd[export])")

from lsfd.inference.edsr_graph import edsr_graph, read_edsr
from lsfd.inference.openvino_graph import compiled_graph, infer

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}
SLIM = {**EDSR, "type": "SlimEDSR"}
SMALL = {**EDSR, "num_feat": 6, "num_block": 2}

OPTIONS: list[dict[str, Any]] = [
    {**SMALL, "upscale": 2},
    {**SMALL, "upscale": 3},
    {**SMALL, "upscale": 8, "num_block": 1},
    {**SMALL, "img_range": 1, "res_scale": 0.1, "rgb_mean": [0.5, 0.25, 0]},
    {**SLIM, "num_feat": 6, "block_widths": [2, 9, 1]},
    {**SLIM, "num_feat": 6, "block_widths": [], "upsample_width": 3, "upscale": 4},
]


def network_of(options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


def file_of(folder: Path, options: dict[str, Any]) -> Path:
    path = folder / "student.safetensors"
    card = StudentCard(architecture=options, scale=options.get("upscale", 4))
    save_student(path, network_of(options), card)
    return path


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_computes_what_pytorch_computes(options: dict[str, Any], tmp_path: Path) -> None:
    student = read_edsr(file_of(tmp_path, options))
    assert student is not None
    network, lq = network_of(options), torch.rand(2, 3, 13, 17)
    with torch.no_grad():
        expected = network(lq).numpy()
    request = compiled_graph(edsr_graph(student), "f32").create_infer_request()
    sr = infer(request, lq.numpy())[0]
    assert sr.shape == expected.shape
    np.testing.assert_allclose(sr, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert student.reach == reach(network)


@pytest.mark.parametrize("options", [EDSR, SLIM], ids=str)
def test_what_options_leave_out_is_as_in_pytorch(options: dict[str, Any], tmp_path: Path) -> None:
    student = read_edsr(file_of(tmp_path, options))
    assert student is not None
    network = network_of(options)
    assert student.options.img_range == network.img_range
    np.testing.assert_array_equal(
        np.float32(student.options.rgb_mean), network.mean.flatten().numpy()
    )
    assert all(block.res_scale == student.options.res_scale for block in network.body)


def write(path: Path, weights: dict[str, Tensor], options: dict[str, Any], scale: int = 4) -> None:
    card = StudentCard(architecture=options, scale=scale)
    save_file(weights, path, card.to_metadata())


def test_what_does_not_fit_is_left_to_pytorch(tmp_path: Path) -> None:
    path, weights = tmp_path / "odd.safetensors", network_of(SMALL).state_dict()
    write(path, weights, SMALL)
    assert read_edsr(path) is not None
    fewer = {name: value for name, value in weights.items() if name != "conv_last.bias"}
    narrow = {**weights, "conv_last.bias": torch.zeros(4)}
    not_a_number = {**weights, "conv_last.bias": torch.full((3,), torch.nan)}
    for odd in (fewer, narrow, not_a_number, {**weights, "more": torch.zeros(1)}):
        write(path, odd, SMALL)
        assert read_edsr(path) is None
    for options, scale in (
        ({**SMALL, "num_block": 3}, 4),
        ({**SMALL, "upscale": 2}, 2),
        (SMALL, 2),
        ({**SMALL, "upscale": 5}, 5),
        ({**SMALL, "num_feat": 10**9}, 4),
        ({**SMALL, "num_block": 10**9}, 4),
        ({**SMALL, "block_widths": [6, 6]}, 4),
        ({**SMALL, "colour": "blue"}, 4),
        ({**SMALL, "type": "RCAN"}, 4),
        ({**SMALL, "rgb_mean": [0.5]}, 4),
    ):
        write(path, weights, options, scale)
        assert read_edsr(path) is None


def test_files_of_other_kinds_are_left_to_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    assert read_edsr(path) is None
    path.write_bytes(b"no tensors")
    assert read_edsr(path) is None
    save_file(network_of(SMALL).state_dict(), path)
    assert read_edsr(path) is None
    save_file(network_of(SMALL).state_dict(), path, {"lsfd_student": "{"})
    assert read_edsr(path) is None
    torch.save(network_of(SMALL).state_dict(), tmp_path / "file.pth")
    assert read_edsr(tmp_path / "file.pth") is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 1), (2, 2), (3, 2), (9, 4)])
def test_the_smallest_images_too(height: int, width: int, tmp_path: Path) -> None:
    options = {**SMALL, "upscale": 4}
    student = read_edsr(file_of(tmp_path, options))
    assert student is not None
    lq = torch.rand(1, 3, height, width)
    with torch.no_grad():
        expected = network_of(options)(lq).numpy()
    sr = infer(compiled_graph(edsr_graph(student), "f32").create_infer_request(), lq.numpy())[0]
    np.testing.assert_allclose(sr, expected, rtol=1e-4, atol=1e-4)
