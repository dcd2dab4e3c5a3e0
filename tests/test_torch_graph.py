from __future__ import annotations

from typing import Any

import lsfd.compat  # noqa: F401

import pytest
import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network

pytest.importorskip("openvino", reason="needs openvino (pip install lsfd[export])")

from lsfd.inference.openvino_graph import compiled_graph, footprint, infer
from lsfd.inference.torch_graph import torch_graph

IMAGES = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8}
RCAN = {"type": "RCAN", **IMAGES, "num_group": 1, "num_block": 2, "squeeze_factor": 4}
RRDB = {"type": "RRDBNet", **IMAGES, "num_block": 1, "num_grow_ch": 4}
SRVGG = {"type": "SRVGGNetCompact_basicsr", **IMAGES, "num_conv": 2}
GATED = {"type": "GatedEDSR", **IMAGES, "num_block": 1}


class AsItsSizeSays(nn.Module):
    """Does something else to images of other sizes."""

    def forward(self, lq: Tensor) -> Tensor:
        return nn.functional.interpolate(lq, scale_factor=2.0) * (1.0 if lq.shape[2] < 30 else 0.5)


class Broken(nn.Module):
    def forward(self, lq: Tensor) -> Tensor:
        raise ValueError("nothing comes of it")


@pytest.mark.parametrize("options", [RCAN, RRDB, SRVGG, GATED], ids=lambda each: each["type"])
def test_networks_of_many_kinds_compute_the_same(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build_network(options).eval()
    graph, lq = torch_graph(network), torch.rand(1, 3, 31, 26)
    with torch.no_grad():
        expected = network(lq)
    sr = infer(compiled_graph(graph, "f32").create_infer_request(), lq.numpy())[0]
    assert float((torch.from_numpy(sr) - expected).abs().max()) < 1e-4
    assert footprint(graph, "bf16") < footprint(graph, "f32")


def test_the_network_stays_as_it_was() -> None:
    network = build_network(RCAN).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch_graph(network)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_that_looks_at_the_size_of_its_input_is_refused() -> None:
    with pytest.raises(LsfdError, match=r"AsItsSizeSays .* differ by"):
        torch_graph(AsItsSizeSays())


def test_other_networks_are_refused_in_one_sentence() -> None:
    with pytest.raises(LsfdError, match="Broken cannot be run by OpenVINO: nothing comes of it"):
        torch_graph(Broken())
    quantised = build_network({"type": "QuantizedEDSR", **IMAGES, "num_block": 1})
    with pytest.raises(LsfdError, match="quantised; export it"):
        torch_graph(quantised)
    windows = Broken()
    windows.window_size = 8
    with pytest.raises(LsfdError, match="attention windows"):
        torch_graph(windows)
