"""Weights from strangers: every container, both families of names, and no code executed."""

from __future__ import annotations

import math
import os
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.networks.weights import (
    fit_weights,
    infer_architecture,
    load_fitting_weights,
    load_weights,
    read_state_dict,
    to_basicsr_keys,
)

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2}
RCAN = {**EDSR, "type": "RCAN", "num_group": 3, "squeeze_factor": 4}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return build_network(EDSR).state_dict()


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


# Containers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".PTH"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_plain_pickles(tmp_path: Path, state: dict[str, Tensor], suffix: str, zipped: bool) -> None:
    path = tmp_path / f"net{suffix}"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(path), state)


def test_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "net.safetensors")
    assert same(read_state_dict(tmp_path / "net.safetensors"), state)


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", "model"])
def test_wrappers(tmp_path: Path, state: dict[str, Tensor], wrapper: str) -> None:
    torch.save({wrapper: OrderedDict(state), "iter": 5}, tmp_path / "net.pth")
    assert same(read_state_dict(tmp_path / "net.pth"), state)


def test_the_average_is_preferred_and_a_key_overrides(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    path = tmp_path / "net.pth"
    torch.save({"params": other(state), "params_ema": state, "mine": other(state)}, path)
    assert same(read_state_dict(path), state)
    assert same(read_state_dict(path, "params"), other(state))
    assert same(read_state_dict(path, "mine"), other(state))
    with pytest.raises(LsfdError, match=r"no part 'theirs'.*params, params_ema, mine"):
        read_state_dict(path, "theirs")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "net.pth")
    assert same(read_state_dict(tmp_path / "net.pth"), state)


# What is refused -------------------------------------------------------------------------------


class Payload:
    """Unpickled, it would leave a folder behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_code_is_refused_and_not_executed(
    tmp_path: Path, state: dict[str, Tensor], zipped: bool
) -> None:
    trace = tmp_path / "executed"
    content = {"params": state, "extra": Payload(trace)}
    path = tmp_path / "net.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(LsfdError, match=r"refused.*contains code \(\w+\.mkdir\)") as caught:
        read_state_dict(path)
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()
    with pytest.raises(LsfdError):
        load_weights(build_network(EDSR), path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # The payload is live: the test can fail.
    assert trace.exists()


def test_a_bare_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (tmp_path / "net.pth").write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(LsfdError):
        read_state_dict(tmp_path / "net.pth")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 100, 3000])
def test_a_cut_file_is_named(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, keep: int
) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LsfdError, match="net") as caught:
        read_state_dict(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=200))
def test_noise_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / f"net{suffix}"
    path.write_bytes(noise)
    with pytest.raises(LsfdError):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds list"),
        ({}, "no tensors"),
        ({"a": torch.zeros(1), "b": 3}, "'b' is int, not a tensor"),
        ({"params": {"a": [1.0]}}, "'a' is list"),
        ({1: torch.zeros(1)}, "'1'"),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(LsfdError, match=said):
        read_state_dict(tmp_path / "net.pth")


def test_missing_file_folder_and_suffix(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match="no such file"):
        read_state_dict(tmp_path / "net.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(LsfdError, match="is a folder; give a file in it"):
        read_state_dict(tmp_path / "folder.pth")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(LsfdError, match=r"\.safetensors, \.pth.*'\.onnx'"):
        read_state_dict(tmp_path / "net.onnx")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Conv2d(1, 1, 1)).save(tmp_path / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch's own is not for the user.
        with pytest.raises(LsfdError, match="TorchScript"):
            read_state_dict(tmp_path / "net.pt")


# Fitting ---------------------------------------------------------------------------------------


def test_a_misfit_lists_keys_and_changes_nothing(tmp_path: Path, state: dict[str, Tensor]) -> None:
    network = build_network({**EDSR, "num_block": 5})
    before = {key: value.clone() for key, value in network.state_dict().items()}
    wrong = {**state, "conv_last.bias": torch.zeros(4), "surplus.weight": torch.zeros(1)}
    torch.save(wrong, tmp_path / "net.pth")
    with pytest.raises(LsfdError) as caught:
        load_weights(network, tmp_path / "net.pth")
    message = str(caught.value)
    assert "12 missing in the file (body.2.conv1.weight" in message
    assert "and 8 more" in message
    assert "1 unknown to the network (surplus.weight)" in message
    assert "conv_last.bias is 4 in the file and 3 in the network" in message
    assert same(network.state_dict(), before)


def test_a_network_of_another_scale_takes_what_fits(tmp_path: Path) -> None:
    save_file(build_network({**EDSR, "upscale": 4}).state_dict(), tmp_path / "x4.safetensors")
    network = build_network({**EDSR, "upscale": 3})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    anew = load_fitting_weights(network, tmp_path / "x4.safetensors")
    assert anew == ["upsample.0.weight", "upsample.0.bias"]
    source = read_state_dict(tmp_path / "x4.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, (before if name in anew else source)[name])


def test_a_network_that_nothing_fits_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    network = build_network(EDSR)
    with pytest.raises(LsfdError, match=r"other\.safetensors: nothing of it fits EDSR"):
        load_fitting_weights(network, tmp_path / "other.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["conv_last.bias"][1] = float("nan")
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(LsfdError, match=r"not finite.*conv_last\.bias"):
        load_weights(build_network(EDSR), tmp_path / "net.pth")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_are_widened(dtype: torch.dtype) -> None:
    network = torch.nn.Linear(2, 2)
    state = {"weight": torch.full((2, 2), 0.5).to(dtype), "bias": torch.ones(2).to(dtype)}
    fit_weights(network, state, "file")
    assert network.weight.dtype == torch.float32 and bool((network.weight == 0.5).all())
    state["bias"] = torch.full((2,), math.nan).to(dtype)
    with pytest.raises(LsfdError, match="not finite"):
        fit_weights(network, state, "file")


def test_half_precision_is_widened(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "net.safetensors")
    network = build_network(EDSR)
    load_weights(network, tmp_path / "net.safetensors")
    loaded = network.state_dict()
    assert all(value.dtype is torch.float32 for value in loaded.values())
    assert same(loaded, {key: value.half().float() for key, value in state.items()})


# Names of the first publications ---------------------------------------------------------------


class MeanShift(nn.Conv2d):
    def __init__(self, sign: int, mean: tuple[float, ...], std: float) -> None:
        super().__init__(3, 3, 1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1) / std
        self.bias.data = sign * 255 * torch.tensor(mean) / std


class PublishedBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PublishedEDSR(nn.Module):
    """EDSR from its paper's description, with the names that EDSR-PyTorch gives its layers."""

    def __init__(
        self,
        width: int,
        blocks: int,
        scale: int,
        mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040),
        std: float = 1.0,
    ) -> None:
        super().__init__()
        factors = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
        layers: list[nn.Module] = []
        for factor in factors:
            layers.append(nn.Conv2d(width, factor**2 * width, 3, padding=1))
            layers.append(nn.PixelShuffle(factor))
        self.sub_mean = MeanShift(-1, mean, std)
        self.add_mean = MeanShift(1, mean, std)
        self.head = nn.Sequential(nn.Conv2d(3, width, 3, padding=1))
        self.body = nn.Sequential(
            *(PublishedBlock(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)
        )
        self.tail = nn.Sequential(nn.Sequential(*layers), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(self.sub_mean(image * 255))
        return self.add_mean(self.tail(x + self.body(x))) / 255


def image() -> Tensor:
    return torch.rand(2, 3, 10, 13, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_published_edsr_computes_the_same(tmp_path: Path, scale: int) -> None:
    published = PublishedEDSR(8, 3, scale)
    torch.save(published.state_dict(), tmp_path / "net.pt")
    options = {**EDSR, "num_block": 3, "upscale": scale}
    network = build_network(options)
    load_weights(network, tmp_path / "net.pt")
    with torch.no_grad():
        torch.testing.assert_close(network(image()), published(image()), atol=1e-5, rtol=1e-5)
    inferred = infer_architecture(published.state_dict())
    assert inferred is not None
    assert inferred.items() >= options.items()


def test_published_mean_shift_is_understood() -> None:
    mean = (0.5, 0.25, 0.125)
    published = PublishedEDSR(8, 1, 2, mean=mean)
    options = infer_architecture(published.state_dict())
    assert options is not None
    assert options["rgb_mean"] == pytest.approx(mean)
    network = build_network(options)
    network.load_state_dict(to_basicsr_keys(published.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(network(image()), published(image()), atol=1e-5, rtol=1e-5)


def test_a_shift_that_basicsr_cannot_express_is_not_guessed() -> None:
    assert infer_architecture(PublishedEDSR(8, 1, 2, std=0.5).state_dict()) is None
    without = {k: v for k, v in PublishedEDSR(8, 1, 2).state_dict().items() if "_mean" not in k}
    assert infer_architecture(without) is None


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_rcan_computes_the_same(tmp_path: Path, scale: int) -> None:
    from spandrel.architectures.RCAN import RCAN as PublishedRCAN  # Keeps the published names.

    published = PublishedRCAN(
        scale=scale, n_resgroups=3, n_resblocks=2, n_feats=8, reduction=4
    ).eval()
    torch.save(published.state_dict(), tmp_path / "net.pt")
    options = {**RCAN, "upscale": scale}
    network = build_network(options)
    load_weights(network, tmp_path / "net.pt")
    with torch.no_grad():
        torch.testing.assert_close(network(image()), published(image()), atol=1e-5, rtol=1e-5)
    inferred = infer_architecture(published.state_dict())
    assert inferred is not None
    assert inferred.items() >= options.items()


def test_basicsr_names_stay(state: dict[str, Tensor]) -> None:
    assert same(to_basicsr_keys(state), state)


# Architecture from weights ---------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(4, 40),
    depth=st.integers(1, 12),
    groups=st.integers(1, 4),
    squeeze=st.integers(1, 4),
    scale=st.sampled_from([1, 2, 3, 4, 8]),
    kind=st.sampled_from(["EDSR", "RCAN"]),
)
def test_inferred_options_rebuild_the_network(
    width: int, depth: int, groups: int, squeeze: int, scale: int, kind: str
) -> None:
    options = {**EDSR, "type": kind, "num_feat": width, "num_block": depth, "upscale": scale}
    if kind == "RCAN":
        options |= {"num_group": groups, "squeeze_factor": squeeze}
    with torch.device("meta"):
        state = build_network(options).state_dict()
        inferred = infer_architecture(state)
        assert inferred is not None
        rebuilt = build_network(inferred).state_dict()
    assert {k: v.shape for k, v in rebuilt.items()} == {k: v.shape for k, v in state.items()}
    assert (inferred["num_feat"], inferred["num_block"]) == (width, depth)
    assert inferred["upscale"] == scale


def test_large_edsr_has_the_residual_scale_of_its_paper() -> None:
    with torch.device("meta"):
        large = build_network({**EDSR, "num_feat": 256, "num_block": 32}).state_dict()
        wide = build_network({**EDSR, "num_feat": 256, "num_block": 2}).state_dict()
    assert (infer_architecture(large) or {})["res_scale"] == 0.1
    assert (infer_architecture(wide) or {})["res_scale"] == 1


def test_other_networks_are_not_taken_for_these() -> None:
    for options in (
        {"type": "MSRResNet", "num_feat": 8, "num_block": 2},
        {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 2},
    ):
        assert infer_architecture(build_network(options).state_dict()) is None
    assert infer_architecture({"conv_first.weight": torch.zeros(3)}) is None
    assert infer_architecture({}) is None
