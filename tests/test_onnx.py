"""Networks as ONNX models, run by both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.inference.onnx import onnx_model, parts
from lsfd.inference.openvino import to_openvino
from lsfd.inference.runtimes import from_onnx, from_openvino
from lsfd.networks.build import build_network

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"needs the extra export: no {package}")

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}

NETWORKS: dict[str, dict[str, Any]] = {
    "EDSR": {**EDSR, "upscale": 4},
    "RCAN": {
        **EDSR, "type": "RCAN", "upscale": 2, "num_group": 1, "squeeze_factor": 2,
    },
    "SRVGGNetCompact": {
        "type": "SRVGGNetCompact", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_conv": 1,
        "upscale": 3,
    },
    "CheapEDSR": {**EDSR, "type": "CheapEDSR", "upscale": 2},
    "GatedEDSR": {**EDSR, "type": "GatedEDSR", "upscale": 2},
    "ECBSR": {
        "type": "ECBSR", "num_in_ch": 3, "num_out_ch": 3, "num_block": 1, "num_channel": 2,
        "with_idt": True, "act_type": "prelu", "scale": 2,
    },
}  # fmt: skip


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(NETWORKS[name])
    with torch.no_grad():
        for parameter in network.parameters():  # Let every layer matter.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


def in_openvino(model: Any, source: str) -> Any:
    return from_openvino(*to_openvino(model, {}), source)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_images_of_any_size_is_as_in_torch(name: str) -> None:
    network = network_of(name)
    model = onnx_model(network)
    runtimes: list[Callable[[Any, str], Any]] = [
        lambda model, source: from_onnx(model.SerializeToString(), source),
        in_openvino,
    ]
    for runtime in runtimes:
        exported, card = runtime(model, name)
        assert card.scale == (NETWORKS[name].get("upscale") or NETWORKS[name]["scale"])
        for shape in ((1, 3, 17, 23), (2, 3, 33, 20), (3, 3, 1, 1)):
            lq = torch.rand(shape, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                torch.testing.assert_close(exported(lq), network(lq), atol=2e-5, rtol=0)


def test_half_precision_is_between_float_images() -> None:
    from onnx import TensorProto

    model = onnx_model(network_of("EDSR"), half=True)
    stored = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert stored == {TensorProto.FLOAT16}
    for port in (*model.graph.input, *model.graph.output):
        assert port.type.tensor_type.elem_type == TensorProto.FLOAT
    lq = torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(1))
    exported, _ = from_onnx(model.SerializeToString(), "half.onnx")
    with torch.no_grad():
        difference = (exported(lq) - network_of("EDSR")(lq)).abs().max()
    assert 0 < difference < 1 / 255


def test_equal_networks_give_equal_files_that_name_no_place_on_this_machine() -> None:
    data = onnx_model(network_of("EDSR")).SerializeToString()
    assert data == onnx_model(network_of("EDSR")).SerializeToString()
    assert str(Path(torch.__file__).parent.parent).encode() not in data
    assert str(Path(__file__).parent.parent).encode() not in data


def test_parts_are_found_at_any_depth() -> None:
    from onnx import helper, numpy_helper

    deep = numpy_helper.from_array(torch.ones(2).numpy(), "deep")
    inner = helper.make_graph([], "inner", [], [], [deep])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    model = helper.make_model(helper.make_graph([node], "outer", [], []))
    assert [part.name for part in parts(model) if type(part) is type(deep)] == ["deep", "deep"]


def test_what_the_exporter_cannot_do_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    class Picky(nn.Module):
        def forward(self, lq: Tensor) -> Tensor:
            return lq * 2 if lq.sum() > 0 else lq

    with pytest.raises(LsfdError, match=r"^Picky cannot be exported to ONNX: .") as error:
        onnx_model(Picky())
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_what_openvino_cannot_convert_is_one_sentence() -> None:
    from onnx import helper

    ports = [[helper.make_tensor_value_info(name, 1, ["n", 3, "h", "w"])] for name in ("lq", "sr")]
    node = helper.make_node("Enlarge", ["lq"], ["sr"], domain="elsewhere")
    model = helper.make_model(helper.make_graph([node], "network", *ports))
    with pytest.raises(LsfdError, match=r"^OpenVINO cannot convert this network: .") as error:
        to_openvino(model, {})
    assert "\n" not in str(error.value)
