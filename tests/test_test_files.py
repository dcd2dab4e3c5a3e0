"""``lsfd test`` with BasicSR's test files: a network, its weights, sets; nothing about training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_options
from option_texts import message

from lsfd.config.load import load_options
from lsfd.networks.build import build_network
from lsfd.training.test import test as score

TEXT = """\
name: EDSR_x2_official
model_type: SRModel
scale: 2
num_gpu: 0
manual_seed: 0

datasets:
  test_1:
    name: Photos
    type: PairedImageDataset
    dataroot_gt: {photographs}
    io_backend:
      type: disk
  test_2:
    name: Again
    type: PairedImageDataset
    dataroot_gt: {photographs}
    filename_tmpl: '{{}}x2'
    io_backend:
      type: disk

network_g: {{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 3, upscale: 2}}

path:
  pretrain_network_g: {weights}
  param_key_g: params_ema
  strict_load_g: true

val:
  save_img: true
  suffix: mine
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false
"""

WriteFile = Callable[..., Path]


@pytest.fixture
def weights(run_options: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """A checkpoint whose part ``params`` holds other weights than ``params_ema``."""
    torch.manual_seed(2)
    states = [build_network(run_options()["network_g"]).state_dict() for _ in range(2)]
    path = tmp_path / "official.pth"
    torch.save(dict(zip(("params", "params_ema"), states, strict=True)), path)
    return path


@pytest.fixture
def test_file(
    weights: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> WriteFile:
    """A function that writes a test file, one text in the place of another; work is beside it."""
    monkeypatch.chdir(tmp_path)

    def write(old: str = "", new: str = "") -> Path:
        text = TEXT.format(photographs=photographs, weights=weights)
        assert old in text
        file = tmp_path / "test_EDSR_x2.yml"
        file.write_text(text.replace(old, new, 1) if old else text)
        return file

    return write


def test_a_test_file_is_scored(test_file: WriteFile) -> None:
    bicubic, network = score(test_file()).rows
    assert (bicubic.name, network.name) == ("bicubic", "official")
    assert [scores.name for scores in network.scores] == ["Photos", "Again"]
    assert network.scores[0].psnr_y == network.scores[1].psnr_y < bicubic.scores[0].psnr_y


def test_the_named_part_of_the_checkpoint_is_scored(test_file: WriteFile) -> None:
    first, second = (
        score(test_file("key_g: params_ema", f"key_g: {key}")).rows[1].scores[0].psnr_y
        for key in ("params_ema", "params")
    )
    assert first != second


def test_images_are_saved_where_basicsr_saves_them(test_file: WriteFile, tmp_path: Path) -> None:
    score(test_file())
    photos = tmp_path / "results" / "EDSR_x2_official" / "visualization" / "Photos"
    names = ["astronaut_mine.png", "chelsea_mine.png"]
    assert sorted(path.name for path in (photos / "official").iterdir()) == names
    score(test_file("save_img: true", "save_img: false"), pictures=tmp_path / "pictures")
    assert sorted(path.name for path in (tmp_path / "pictures/Again/bicubic").iterdir()) == names


def test_nothing_is_saved_unasked(test_file: WriteFile, tmp_path: Path) -> None:
    score(test_file("save_img: true", "save_img: false"))
    assert not (tmp_path / "results").exists()


def test_training_with_a_test_file_is_refused(test_file: WriteFile) -> None:
    said = message(load_options, test_file())
    assert "has neither train nor datasets.train, so it is for lsfd test only" in said


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("type: disk", "type: lmdb", "datasets.test_1.io_backend.type: should be 'disk'"),
        ("'{}x2'", "'{}_LR'", "datasets.test_2.filename_tmpl: inputs are found under the names"),
        (
            "type: PairedImageDataset",
            "type: SingleImageDataset",
            "datasets.test_1.type: should be 'PairedImageDataset', got 'SingleImageDataset'",
        ),
        ("test_1:", "tset_1:", "datasets.tset_1: unknown option; did you mean 'test'?"),
        ("upscale: 2", "upscale: 4", "network_g.upscale: 4 differs from scale 2"),
        ("crop_border: 2", "crop_border: 4", "val.metrics.psnr.crop_border: scores shave"),
        ("suffix:", "sufix:", "val.sufix: unknown option; did you mean 'suffix'?"),
        ("_network_g: ", "_network_g: null # ", "path.pretrain_network_g: is missing: name"),
        ("params_ema", "params_em", "has no part 'params_em'"),
        ("manual_seed: 0", "logger: {}", "logger: unknown option"),
    ],
)
def test_mistakes_are_named(test_file: WriteFile, old: str, new: str, expected: str) -> None:
    assert expected in message(score, test_file(old, new))


def test_a_run_is_not_scored_by_what_it_started_from(
    run_options: Callable[..., dict[str, Any]], weights: Path, tmp_path: Path
) -> None:
    options = run_options(path={"pretrain_network_g": str(weights)})
    said = message(score, write_options(tmp_path / "options.yml", options))
    assert "tiny.safetensors is not there: train" in said


def test_a_set_is_needed(test_file: WriteFile) -> None:
    said = message(score, test_file(), ["datasets={}"])
    assert said.endswith("there is no set to score on; add datasets.val")
