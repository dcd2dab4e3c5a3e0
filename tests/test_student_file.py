"""One file, no option file: what was saved comes back, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from lsfd.errors import LsfdError
from lsfd.networks import build as build_module
from lsfd.networks import student_file
from lsfd.networks.build import build_network
from lsfd.networks.card import METADATA_KEY
from lsfd.networks.student_file import StudentCard, load_any, read_student, save_student

OPTIONS = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2}
CARD = StudentCard(
    architecture={**OPTIONS, "res_scale": 0.5, "rgb_mean": [0.4, 0.4, 0.4]},
    scale=4,
    method="LSFD",
    teacher="teacher.pth",
    iterations=300,
    data="12 photographs",
    scores={"Set5": {"psnr_y": 31.5, "ssim_y": 0.88}, "flat": {"psnr_y": math.inf}},
    seed=0,
    commit="0123abc",
    versions={"torch": "2.4"},
    hardware="2 cores",
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(1)
    return build_network(CARD.architecture)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "student.safetensors"


def rewrite(path: Path, **changes: Any) -> None:
    """Replace fields of a saved file's card."""
    card = json.loads(CARD.to_metadata()[METADATA_KEY]) | changes
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(card)})


def test_round_trip(path: Path, network: nn.Module) -> None:
    save_student(path, network.train(), CARD)
    loaded, card = read_student(path)
    assert card == CARD
    assert not loaded.training
    image = torch.rand(1, 3, 12, 14)
    with torch.no_grad():
        assert torch.equal(loaded(image), network.eval()(image))


def test_a_card_is_strict_json() -> None:
    """A page's JavaScript reads no ``Infinity``; files of before have one."""
    card = StudentCard(architecture={}, scale=2, scores={"flat": {"psnr": math.inf}})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = card.to_metadata()[METADATA_KEY]
    json.loads(text, parse_constant=refuse)
    older = text.replace('"inf"', "Infinity")
    assert older != text and StudentCard.from_metadata({METADATA_KEY: older}) == card


def test_a_state_dict_will_do(path: Path, network: nn.Module) -> None:
    save_student(path, network.state_dict(), CARD)
    loaded, _ = read_student(path)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_half_precision_halves_the_file_and_loads_as_float32(
    path: Path, network: nn.Module
) -> None:
    save_student(path, network, CARD)
    full = path.stat().st_size
    save_student(path, network, CARD, dtype=torch.float16)
    assert path.stat().st_size < 0.65 * full
    loaded, _ = read_student(path)
    for key, value in loaded.state_dict().items():
        assert value.dtype is torch.float32
        assert torch.equal(value, network.state_dict()[key].half().float())


def test_integers_stay_integers(path: Path) -> None:
    options = {"type": "SwinIR", "img_size": 16, "window_size": 8, "embed_dim": 12} | {
        "depths": [2],
        "num_heads": [2],
        "upsampler": "pixelshuffledirect",
        "upscale": 2,
    }
    swin = build_network(options)
    save_student(path, swin, StudentCard(architecture=options, scale=2), dtype=torch.float16)
    tensors = load_file(path)
    index = next(key for key in tensors if "relative_position_index" in key)
    assert tensors[index].dtype is torch.int64
    read_student(path)


def test_equal_input_gives_equal_bytes(path: Path, network: nn.Module) -> None:
    save_student(path, network, CARD)
    first = path.read_bytes()
    reordered = dict(reversed(network.state_dict().items()))
    striped = {
        key: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
        for key, value in reordered.items()
    }
    fields = dict(reversed(CARD.model_dump().items()))
    save_student(path, striped, StudentCard(**fields))
    assert path.read_bytes() == first


def test_saving_leaves_random_numbers_and_network_alone(path: Path, network: nn.Module) -> None:
    before = torch.get_rng_state()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    save_student(path, network, CARD, dtype=torch.float16)
    read_student(path)
    load_any(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_student(path, network, CARD)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(LsfdError, match="No space left"):
        save_student(path, network, CARD.model_copy(update={"note": "new"}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_could_not_be_loaded_is_not_saved(path: Path, network: nn.Module) -> None:
    for update, said in (
        ({"scale": 2}, "says that it enlarges x2, but it enlarges x4"),
        ({"architecture": {**OPTIONS, "num_block": 3}}, "missing in the file"),
        ({"architecture": {"type": "EDRS"}}, "did you mean 'EDSR'"),
    ):
        with pytest.raises(LsfdError, match=said):
            save_student(path, network, CARD.model_copy(update=update))
    with pytest.raises(LsfdError, match="not finite"):
        network.conv_last.bias.data[0] = 1e6  # Too large for float16.
        save_student(path, network, CARD, dtype=torch.float16)
    with pytest.raises(LsfdError, match=r"ends in \.safetensors"):
        save_student(path.with_suffix(".pth"), network, CARD)
    with pytest.raises(LsfdError, match="float32 or float16"):
        save_student(path, network, CARD, dtype=torch.int8)
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": "4"}, "scale"),
        ({"scale": 0}, "scale"),
        ({"scale": 3}, "says that it enlarges x3"),
        ({"architecture": None}, "architecture"),
        ({"architecture": {}}, "architecture.type"),
        ({"architecture": {"type": "os.system"}}, "no network 'os.system'"),
        ({"architecture": {**OPTIONS, "num_block": 10**9}}, "num_block"),
        ({"architecture": {**OPTIONS, "num_feat": 16}}, "do not fit"),
        ({"architecture": {**OPTIONS, "run": "code"}}, "no such argument"),
        ({"scores": {"Set5": "high"}}, "scores.Set5"),
        ({"iterations": -1}, "iterations"),
    ],
)
def test_a_false_card_is_refused(
    path: Path, network: nn.Module, changes: dict[str, Any], said: str
) -> None:
    save_student(path, network, CARD)
    rewrite(path, **changes)
    with pytest.raises(LsfdError, match=r"student\.safetensors") as caught:
        read_student(path)
    assert said in str(caught.value)


def test_a_card_that_claims_too_much_takes_no_memory(
    path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_student(path, network, CARD)
    rewrite(path, architecture={**OPTIONS, "num_feat": 16, "num_block": 9})
    devices = []

    def build(*arguments: Any) -> nn.Module:
        devices.append(str(torch.get_default_device()))
        return build_network(*arguments)

    monkeypatch.setattr(student_file, "build_network", build)
    monkeypatch.setattr(build_module, "build_network", build)
    with pytest.raises(LsfdError, match="do not fit"):
        read_student(path)
    assert devices == ["meta"]


def test_a_scale_that_few_weights_ask_for_takes_no_memory(path: Path, network: nn.Module) -> None:
    save_student(path, network, CARD)
    rewrite(path, architecture={**OPTIONS, "upscale": 256})
    with pytest.raises(LsfdError, match=r"upscale: must be a whole number in 1\.\.16"):
        read_student(path)


@settings(max_examples=50, deadline=None)
@given(text=st.one_of(st.text(), st.recursive(st.none() | st.integers(), st.lists).map(json.dumps)))
def test_any_metadata_text_gives_a_card_or_an_error(text: str) -> None:
    with pytest.raises(LsfdError):
        StudentCard.from_metadata({METADATA_KEY: text})


def test_deep_nesting_is_an_error() -> None:
    with pytest.raises(LsfdError, match="damaged"):
        StudentCard.from_metadata({METADATA_KEY: "[" * 100_000})


def test_fields_of_a_later_version_are_passed_over(path: Path, network: nn.Module) -> None:
    save_student(path, network, CARD)
    rewrite(path, colour="blue")
    assert read_student(path)[1] == CARD


def test_a_damaged_file_is_named(path: Path, network: nn.Module) -> None:
    save_student(path, network, CARD)
    path.write_bytes(path.read_bytes()[:-10])
    for load in (read_student, load_any):
        with pytest.raises(LsfdError, match=r"student\.safetensors.*damaged"):
            load(path)


def test_no_student(path: Path, network: nn.Module) -> None:
    save_file(network.state_dict(), path)
    with pytest.raises(LsfdError, match="does not describe itself"):
        read_student(path)
    with pytest.raises(LsfdError, match="no such file"):
        read_student(path.with_name("other.safetensors"))


def test_any_reads_students_checkpoints_and_options(path: Path, network: nn.Module) -> None:
    save_student(path, network, CARD)
    assert load_any(path)[1] == CARD
    checkpoint = path.with_name("net.pth")
    torch.save({"params": network.state_dict()}, checkpoint)
    recognised, card = load_any(checkpoint)
    assert (card.scale, card.note, card.method) == (4, "read from net.pth", None)
    assert card.architecture["type"] == "EDSR"
    assert not recognised.training
    with_options, card = load_any(checkpoint, CARD.architecture)
    assert card.architecture == CARD.architecture
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(with_options(image), network.eval()(image))
