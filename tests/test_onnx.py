"""ONNX files: the integers in them are those that the network was trained with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from lsfd.cli import main
from lsfd.errors import LsfdError
from lsfd.inference import onnx as exporter
from lsfd.inference.onnx import OnnxUpscaler, export_onnx
from lsfd.inference.upscaler import Upscaler
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


def int8() -> Any:
    torch.manual_seed(0)
    network = build_network(EDSR)
    with torch.no_grad():  # Values that clip, and a channel that is always on.
        network.conv_first.weight.mul_(3)
        network.body[0].conv1.bias.add_(20)
    return quantize(network.eval(), EDSR, 8, [photograph()])[0]


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
    network = int8()
    monkeypatch.setattr(exporter, "_onnx", arithmetic)
    with torch.no_grad():
        assert torch.equal(exporter._deployed(network)(photograph()), network(photograph()))


def test_weights_are_stored_as_int8_and_biases_as_int32() -> None:
    state = exporter._deployed(int8()).state_dict()
    kinds = {name: value.dtype for name, value in state.items()}
    weights = [name for name in kinds if name.endswith("conv1.weight") or "conv_" in name]
    assert kinds["body.1.conv1.weight"] == kinds["conv_last.weight"] == torch.int8, weights
    assert kinds["upsample.2.bias"] == torch.int32
    assert kinds["conv_first.input_levels.zero"] == torch.uint8
    assert state["body.0.conv2.input_levels.zero"] == 0  # After a ReLU.
    assert state["body.0.conv1.input_levels.zero"] == 128


def test_other_bits_have_no_integer_kernels(tmp_path: Path) -> None:
    network = quantize(build_network(EDSR), EDSR, 6, [photograph()])[0]
    with pytest.raises(LsfdError, match="bits: integer kernels are for 8 bits, not 6"):
        export_onnx(network, tmp_path / "network.onnx")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LsfdError, match=r"pip install lsfd\[onnx\]"):
        OnnxUpscaler(tmp_path / "network.onnx")
    with pytest.raises(LsfdError, match=r"ends in \.onnx"):
        export_onnx(int8(), tmp_path / "network.pt")


@pytest.mark.filterwarnings("ignore")
class TestRuntime:
    """By ONNX Runtime itself."""

    @pytest.fixture(scope="class", autouse=True)
    def _packages(self) -> None:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason=f"needs the extra onnx: no {name}")

    @pytest.fixture(scope="class")
    def files(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Any, Path]:
        """A network and its file, a quantised one and its file."""
        folder = tmp_path_factory.mktemp("onnx")
        torch.manual_seed(0)
        full, quantized = build_network(EDSR).eval(), int8()
        files = folder / "full.onnx", folder / "int8.onnx"
        source = folder / "full.safetensors"
        save_student(source, full, StudentCard(architecture=EDSR, scale=4))
        assert main(["export", "-w", str(source), "-o", str(files[0])]) == 0
        export_onnx(quantized, files[1])
        return full, files[0], quantized, files[1]

    @pytest.mark.parametrize("shape", [(31, 23), (1, 1), (24, 40)])
    def test_runs_images_of_any_size(self, files: Any, shape: tuple[int, int]) -> None:
        full, full_file, quantized, int8_file = files
        x = photograph().expand(1, 3, 31, 23)
        x = torch.nn.functional.interpolate(x, shape)
        with torch.no_grad():
            expected, trained = full(x).numpy(), quantized(x).numpy()
        np.testing.assert_allclose(OnnxUpscaler(full_file).run(x.numpy()), expected, atol=1e-4)
        found = OnnxUpscaler(int8_file).run(x.numpy())
        # A sum that lies between two levels may fall on the other one, and that goes on from there.
        assert np.sqrt(np.square(found - trained).mean()) < 0.1 * trained.std() + 1e-3

    def test_weights_take_a_byte_each(self, files: Any) -> None:
        import onnx

        stored = onnx.load(files[3]).graph.initializer
        large = [item for item in stored if np.prod(item.dims) > 100]
        assert len(large) == 9
        assert {item.data_type for item in large} == {onnx.TensorProto.INT8}

    def test_an_image_is_upscaled_as_by_torch(self, files: Any) -> None:
        image = data.astronaut()[40:71, 200:223]
        expected = Upscaler(files[0], 4, "cpu")(image).astype(int)
        assert np.abs(OnnxUpscaler(files[1])(image).astype(int) - expected).max() <= 1

    def test_a_file_that_is_none_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "network.onnx"
        path.write_bytes(b"no network")
        with pytest.raises(LsfdError, match="is no ONNX file"):
            OnnxUpscaler(path)
