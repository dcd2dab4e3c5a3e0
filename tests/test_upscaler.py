from __future__ import annotations

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.swinir_arch import SwinIR
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.inference import upscaler as upscaler_module
from lsfd.inference.device import autocast_dtype, pick_device
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.opaque import OpaqueNetwork

CPU = torch.device("cpu")
# Head, two blocks of two, body tail, upsampler, and two pixels at x2 for the last: 8 convolutions.
EDSR_SEES = 8


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def edsr(seed: int = 0) -> EDSR:
    torch.manual_seed(seed)
    network = EDSR(3, 3, num_feat=8, num_block=2, upscale=2)
    # BasicSR starts with residual branches near zero; larger ones let the surroundings matter.
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    return network


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain_forward(network: nn.Module, lq: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Grey levels before rounding."""
    tensor = torch.from_numpy(lq / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        output = network.eval()(tensor)[0].permute(1, 2, 0).double().numpy()
    return np.clip(output * 255, 0, 255)


def test_an_exported_network_is_on_the_cpu_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upscaler_module, "pick_device", lambda _: torch.device("cuda"))
    assert Upscaler(OpaqueNetwork(1, 3, 1000), 2).device == CPU


class Constant(nn.Module):
    """Answers every pixel with one value, enlarged x2."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, lq: Tensor) -> Tensor:
        return torch.full((1, 3, lq.shape[2] * 2, lq.shape[3] * 2), self.value)


class Nearest(nn.Module):
    """Enlarges x2 by repeating pixels and remembers the sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, lq: Tensor) -> Tensor:
        self.sizes.append((lq.shape[2], lq.shape[3]))
        return nn.functional.interpolate(lq, scale_factor=2.0)


def test_the_result_is_the_rounded_output_of_the_network() -> None:
    network, lq = edsr(), image(13, 17)
    sr = Upscaler(network, 2, CPU)(lq)
    assert sr.dtype == np.uint8
    assert sr.shape == (26, 34, 3)
    assert np.abs(sr - plain_forward(network, lq)).max() <= 0.501
    assert len(np.unique(sr)) > 50


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.5 / 255, 1), (2.5 / 255, 3), (2.49 / 255, 2), (-0.2, 0), (1.3, 255), (1.0, 255)],
)
def test_rounding_is_half_up_and_clips(value: float, level: int) -> None:
    assert np.all(Upscaler(Constant(value), 2, CPU)(image(3, 4)) == level)


def test_channels_and_places_are_kept() -> None:
    lq = image(5, 6)
    assert np.array_equal(Upscaler(Nearest(), 2, CPU)(lq), lq.repeat(2, 0).repeat(2, 1))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_tiles_with_enough_overlap_equal_the_whole(height: int, width: int, tile: int) -> None:
    network, lq = edsr(), image(height, width)
    whole = Upscaler(network, 2, CPU)(lq).astype(int)
    tiled = Upscaler(network, 2, CPU, tile=tile, tile_overlap=EDSR_SEES)(lq)
    assert np.abs(tiled - whole).max() <= 1


def test_tiles_without_overlap_differ_near_their_edges() -> None:
    network, lq = edsr(), image(40, 40)
    whole = Upscaler(network, 2, CPU)(lq).astype(int)
    difference = np.abs(Upscaler(network, 2, CPU, tile=20, tile_overlap=0)(lq) - whole).max(axis=2)
    assert difference.max() > 1
    assert difference[:8, :8].max() <= 1


def test_a_tile_brings_its_overlap_and_no_more() -> None:
    network = Nearest()
    Upscaler(network, 2, CPU, tile=10, tile_overlap=3)(image(25, 10))
    assert network.sizes == [(13, 10), (16, 10), (8, 10)]


def test_large_outputs_are_tiled_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscaler_module, "WHOLE_IMAGE_PIXELS", 20 * 20 * 4)
    monkeypatch.setattr(upscaler_module, "budget", lambda device: 16 * 16)
    monkeypatch.setattr(upscaler_module, "bytes_per_pixel", lambda network: 1)
    network = Nearest()
    upscale = Upscaler(network, 2, CPU)
    upscale(image(20, 20))
    assert network.sizes == [(20, 20)]
    lq = image(20, 21)
    assert np.array_equal(upscale(lq), lq.repeat(2, 0).repeat(2, 1))
    assert network.sizes[-4:] == [(16, 16), (16, 5), (4, 16), (4, 5)]


def swinir() -> SwinIR:
    torch.manual_seed(0)
    return SwinIR(
        upscale=2, img_size=16, window_size=8, depths=[2], embed_dim=12, num_heads=[2],
        mlp_ratio=2, upsampler="pixelshuffledirect",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("size", [(16, 24), (13, 21), (3, 2), (1, 1)])
def test_windows_are_filled_up_by_reflection(size: tuple[int, int]) -> None:
    network, lq = swinir(), image(*size)
    upscale = Upscaler(network, 2, CPU)
    assert upscale.multiple == 8
    height, width = size
    filled = np.pad(lq, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect")
    expected = plain_forward(network, filled)[: height * 2, : width * 2]
    sr = upscale(lq)
    assert sr.shape == expected.shape
    assert np.abs(sr - expected).max() <= 0.501


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_tiles_of_a_window_network_are_whole_windows() -> None:
    sr = Upscaler(swinir(), 2, CPU, tile=11, tile_overlap=3)(image(37, 30))
    assert sr.shape == (74, 60, 3)


def test_a_network_in_training_is_left_as_it_was() -> None:
    network = edsr().train()
    network.body.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    strides = [parameter.stride() for parameter in network.parameters()]
    Upscaler(network, 2, CPU)(image(9, 9))
    assert network.training
    assert not network.body.training
    assert strides == [parameter.stride() for parameter in network.parameters()]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    network(torch.rand(1, 3, 9, 9)).sum().backward()
    assert network.conv_first.weight.grad is not None


def test_the_network_runs_in_eval_mode() -> None:
    network = nn.Sequential(Nearest(), nn.Dropout(0.5)).train()
    lq = image(6, 6)
    assert np.array_equal(Upscaler(network, 2, CPU)(lq), lq.repeat(2, 0).repeat(2, 1))


def test_bf16_is_close_to_fp32_but_not_equal() -> None:
    network, lq = EDSR(3, 3, num_feat=8, num_block=2, upscale=2), image(16, 16)
    exact = Upscaler(network, 2, CPU)(lq).astype(int)
    rounded = Upscaler(network, 2, CPU, precision="bf16")(lq)
    assert 0 < np.abs(rounded - exact).max() <= 8


def test_mistakes_are_named() -> None:
    upscale = Upscaler(edsr(), 4, CPU)
    with pytest.raises(LsfdError, match=r"\(1, 3, 10, 12\).*not an image enlarged x4"):
        upscale(image(5, 6))
    with pytest.raises(LsfdError, match="uint8 H x W x 3"):
        upscale(image(5, 6)[..., :1])
    with pytest.raises(LsfdError, match="uint8 H x W x 3"):
        upscale(image(5, 6)[:0])
    with pytest.raises(LsfdError, match="at least 1 pixel, not 0"):
        Upscaler(edsr(), 2, CPU, tile=0)
    with pytest.raises(LsfdError, match="tile_overlap"):
        Upscaler(edsr(), 2, CPU, tile_overlap=-1)
    for value in (float("nan"), float("inf")):
        with pytest.raises(LsfdError, match="NaN or infinity"):
            Upscaler(Constant(value), 2, CPU)(image(2, 2))


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == CPU
    with pytest.raises(LsfdError, match="'gpu' is unknown; valid: auto, cpu, cuda"):
        pick_device("gpu")
    with pytest.raises(LsfdError, match="'meta' is unknown"):
        pick_device("meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(LsfdError, match="'cuda' is not there: PyTorch sees 0 GPUs"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(LsfdError, match="'cuda:2' is not there: PyTorch sees 2 GPUs"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, None), (True, False, torch.bfloat16), (False, True, torch.bfloat16)],
)
def test_auto_takes_bf16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, expected: torch.dtype | None
) -> None:
    probe = {"_is_avx512_bf16_supported": avx512_bf16, "_is_amx_tile_supported": amx}
    for name, answer in probe.items():
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    assert autocast_dtype("auto", CPU) == expected


def test_auto_is_fp32_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert autocast_dtype("auto", CPU) is None


def test_precisions_by_name() -> None:
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    assert autocast_dtype("fp16", torch.device("cuda")) == torch.float16
    with pytest.raises(LsfdError, match="'fp16' needs a GPU"):
        autocast_dtype("fp16", CPU)
    with pytest.raises(LsfdError, match="'bf15' is unknown; did you mean 'bf16'"):
        autocast_dtype("bf15", CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "auto"])
def test_on_a_gpu(precision: str) -> None:
    network, lq = edsr(), image(16, 16)
    expected = Upscaler(network, 2, CPU)(lq).astype(int)
    sr = Upscaler(network, 2, "cuda", precision)(lq)
    assert np.abs(sr - expected).max() <= (1 if precision == "fp32" else 8)
