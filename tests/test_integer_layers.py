"""Quantised networks as they are exported: the integers are those that they were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from lsfd.errors import LsfdError
from lsfd.inference import integer_layers
from lsfd.inference.export import export
from lsfd.inference.integer_layers import has_integers, in_integers
from lsfd.inference.networks import open_network
from lsfd.networks.build import build_network
from lsfd.networks.post_training import quantize
from lsfd.networks.student_file import StudentCard, save_student

EDSR = {
    "type": "EDSR",
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 8,
    "num_block": 2,
    "upscale": 4,
}


def photograph() -> Tensor:
    image = torch.from_numpy(data.astronaut()[40:71, 200:223].copy())  # Odd sides.
    return image.permute(2, 0, 1)[None].float() / 255


def int8(bits: int = 8) -> tuple[Any, dict[str, Any]]:
    """A quantised network and its options."""
    torch.manual_seed(0)
    network = build_network(EDSR)
    with torch.no_grad():  # Values that clip, and a channel that is always on.
        network.conv_first.weight.mul_(3)
        network.body[0].conv1.bias.add_(20)
    return quantize(network.eval(), EDSR, bits, [photograph()])


def arithmetic(
    operator: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, axis: int = 1
) -> Tensor:
    """What ONNX says that its two operators do."""
    x, scale, zero = inputs
    shape = [-1 if scale.dim() and d == axis else 1 for d in range(x.dim())]
    scale, zero = scale.view(shape), zero.view(shape)
    if operator == "QuantizeLinear":
        assert dtype == torch.uint8
        return ((x / scale).round() + zero).clamp(0, 255).to(dtype)
    assert operator == "DequantizeLinear" and not x.is_floating_point()
    return (x.float() - zero) * scale


def test_integers_give_what_was_trained_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = int8()
    monkeypatch.setattr(integer_layers, "_onnx", arithmetic)
    with torch.no_grad():
        assert torch.equal(in_integers(network)(photograph()), network(photograph()))


def test_weights_are_stored_as_int8_and_biases_as_int32() -> None:
    state = in_integers(int8()[0]).state_dict()
    kinds = {name: value.dtype for name, value in state.items()}
    weights = [name for name in kinds if name.endswith("conv1.weight") or "conv_" in name]
    assert kinds["body.1.conv1.weight"] == kinds["conv_last.weight"] == torch.int8, weights
    assert kinds["upsample.2.bias"] == torch.int32
    assert kinds["conv_first.input_levels.zero"] == torch.uint8
    assert state["body.0.conv2.input_levels.zero"] == 0  # After a ReLU.
    assert state["body.0.conv1.input_levels.zero"] == 128


def test_other_bits_have_no_integer_kernels() -> None:
    with pytest.raises(LsfdError, match="bits: integer kernels are for 8 bits, not 6"):
        in_integers(int8(6)[0])


def test_only_what_is_quantised_has_integers() -> None:
    assert has_integers(int8()[0])
    assert not has_integers(build_network(EDSR))


class TestRuntimes:
    """By ONNX Runtime and OpenVINO."""

    @pytest.fixture(scope="class")
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
            pytest.importorskip(name, reason=f"needs the extra export: no {name}")
        network, options = int8()
        path = tmp_path_factory.mktemp("int8") / "int8.safetensors"
        save_student(path, network, StudentCard(architecture=options, scale=4))
        return path

    @pytest.mark.parametrize("suffix", [".onnx", ".xml"])
    def test_the_network_keeps_its_own_integers(
        self, source: Path, tmp_path: Path, suffix: str, photographs: Path
    ) -> None:
        report = export(source, tmp_path / f"int8{suffix}", images=photographs)
        assert (report.precision, report.photographs) == ("int8", 1)
        assert abs(report.after - report.before) < 0.05
        network, exported = (open_network(path)[0] for path in (source, report.path))
        x = torch.nn.functional.interpolate(photograph(), (17, 40))
        with torch.no_grad():
            expected, found = network(x), exported(x)
        # A sum that lies between two levels may fall on the other one, and that goes on from there.
        assert (found - expected).square().mean().sqrt() < 0.1 * expected.std() + 1e-3
        if suffix == ".onnx":
            self.weights_take_a_byte_each(report.path)

    def weights_take_a_byte_each(self, path: Path) -> None:
        import onnx

        stored = onnx.load(path).graph.initializer
        large = [item for item in stored if np.prod(item.dims) > 100]
        assert len(large) == 9
        assert {item.data_type for item in large} == {onnx.TensorProto.INT8}

    def test_integers_have_no_half(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(LsfdError, match="quantised to integers; export it without --half"):
            export(source, tmp_path / "int8.onnx", precision="fp16")
