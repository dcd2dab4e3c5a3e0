"""Orthogonality of gains: the arithmetic, and the designs that the script plans."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_options

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.networks.quantized_edsr import QuantizedEDSR
from lsfd.networks.slim_edsr import SlimEDSR
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.reporting.orthogonality import (
    orthogonality,
    orthogonality_table,
    ratio_of_means,
    save_orthogonality,
)

SCRIPT = Path(__file__).parent.parent / "scripts" / "orthogonality.py"
Scores = dict[str, dict[str, dict[int, float]]]


def scores(gain_x: float, noise: float = 0.0) -> Scores:
    """Scores of one design; distillation gains 0.1 dB on the base and ``gain_x`` with X."""
    draw = np.random.default_rng(0)
    means = {"base": 30.0, "base+KD": 30.1, "x": 29.0, "x+KD": 29.0 + gain_x}
    return {
        cell: {"Set5": {seed: mean + noise * draw.normal() for seed in range(4)}}
        for cell, mean in means.items()
    }


# Arithmetic


@pytest.mark.parametrize("gain_x", [0.1, 0.05, 0.0, -0.1])
def test_ratio_is_the_share_of_the_gain(gain_x: float) -> None:
    found = orthogonality(scores(gain_x), "x", "Set5")
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(gain_x / 0.1)
    assert found.cost.mean == pytest.approx(-1)
    assert found.interaction.mean == pytest.approx(gain_x - 0.1)


def test_a_gain_within_noise_has_no_ratio_but_a_difference() -> None:
    found = orthogonality(scores(0.1, noise=0.5), "x", "Set5")
    assert not found.base_gain.is_certain
    assert found.ratio is None and found.interaction.half_width is not None


@pytest.mark.parametrize("seed", range(5))
def test_ratio_is_undefined_exactly_where_the_gain_is_uncertain(seed: int) -> None:
    draw = np.random.default_rng(seed)
    given = {
        cell: {"Set5": {s: float(draw.normal(mean, 0.05)) for s in range(3)}}
        for cell, mean in {"base": 30, "base+KD": 30.2, "x": 29, "x+KD": 29.1}.items()
    }
    found = orthogonality(given, "x", "Set5")
    assert (found.ratio is None) is not found.base_gain.is_certain


def test_interval_holds_the_truth_in_95_of_100_studies() -> None:
    draw = np.random.default_rng(0)
    hits = studies = 0
    for _ in range(2000):
        shared = draw.normal(0, 0.02, 3)
        top, bottom = (mean + shared + draw.normal(0, 0.01, 3) for mean in (0.15, 0.3))
        found = ratio_of_means(top, bottom)
        if found is not None:
            studies += 1
            hits += found.low <= 0.5 <= found.high
            assert found.low <= found.value <= found.high
    assert studies > 1900
    assert hits / studies == pytest.approx(0.95, abs=0.015)


def test_without_noise_the_interval_is_the_value_and_one_seed_has_none() -> None:
    found = ratio_of_means([1.0, 1.0], [2.0, 2.0])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert ratio_of_means([1.0], [2.0]) is None
    assert ratio_of_means([1.0, 1.0], [0.0, 0.0]) is None


def test_table_and_picture_say_undefined(tmp_path: Path) -> None:
    given = scores(0.05)
    noisy = {cell: sets["Set5"] for cell, sets in scores(0.05, noise=0.5).items()}
    for cell, by_seed in noisy.items():
        given[cell]["Set14"] = by_seed
    text = orthogonality_table(given, ["x"])
    assert "0.50 to 0.50" in text and "undefined" in text
    path = tmp_path / "picture.png"
    save_orthogonality(given, ["x"], path, "title")
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("cell", ["base", "base+KD", "x", "x+KD"])
def test_a_missing_score_is_named(cell: str) -> None:
    given = scores(0.05)
    del given[cell]["Set5"][2]
    with pytest.raises(LsfdError, match=re.escape(f"{cell} has no score on Set5 with seed 2")):
        orthogonality_table(given, ["x"])


# The script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("orthogonality_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["orthogonality_script"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(script: ModuleType, run_options: Callable[..., dict[str, Any]], tmp_path: Path) -> Any:
    """A study whose starts are there, though with random weights."""
    option_file = write_options(tmp_path / "options.yml", run_options())
    command = ["-opt", str(option_file), "--seeds", "4", "--experiments", str(tmp_path / "runs")]
    study = script.Study(script.parser().parse_args(command))
    for run in study.starts(4):
        options = run.loaded.raw["network_g"]
        card = StudentCard(architecture=options, scale=2)
        save_student(run.folder.student, build_network(options), card)
    study.compress(4)
    return study


def test_the_cells_of_a_design_share_everything_but_network_and_distillers(study: Any) -> None:
    cells = {run.method: run.loaded for run in study.cells(4)}
    assert len(cells) == 8
    (first, *others) = cells.values()
    for other in others:
        for section in ("manual_seed", "datasets", "train", "val", "scale"):
            assert getattr(other.options, section) == getattr(first.options, section)
    for name in ("base", "pruned", "quantised", "cheap"):
        alone, both = cells[name], cells[f"{name}+KD"]
        assert alone.options.network_g == both.options.network_g
        assert alone.options.path == both.options.path
        assert [d.type for d in alone.options.distillers] == ["Plain"]
        assert [d.type for d in both.options.distillers] == ["LSFD"]


def test_starts_have_other_seeds_and_no_teacher(study: Any) -> None:
    for run in study.starts(4):
        assert run.loaded.options.manual_seed == 1004
        assert [d.type for d in run.loaded.options.distillers] == ["Plain"]


def test_cells_begin_with_what_compression_left(study: Any) -> None:
    kinds = {name: type(read_student(study.begin(name, 4))[0]) for name in study.networks}
    assert kinds["pruned"] is SlimEDSR and kinds["quantised"] is QuantizedEDSR
    before = study.begin("pruned", 4).read_bytes()
    study.compress(4)  # Is done once.
    assert study.begin("pruned", 4).read_bytes() == before


def test_a_start_takes_what_was_made_of_it_along(study: Any) -> None:
    start = study.begin("base", 4)
    shutil.rmtree(start.parent)
    network = dict(study.starts(4)[0].loaded.raw["network_g"])
    torch.manual_seed(1)  # Trained anew, it has other weights.
    save_student(start, build_network(network), StudentCard(architecture=network, scale=2))
    study.compress(4)
    bias = {name: read_student(study.begin(name, 4))[0].conv_first.bias for name in study.networks}
    assert torch.equal(bias["pruned"], bias["base"])
    assert torch.equal(bias["quantised"], bias["base"])


def finish(study: Any) -> None:
    """Leave of starts and cells what training leaves; scores count the cells."""
    for number, run in enumerate([*study.cells(4), *study.starts(4)]):
        run.folder.models.mkdir(parents=True, exist_ok=True)
        begun = run.loaded.options.path.pretrain_network_g
        if begun is not None:
            save_student(run.folder.student, *read_student(Path(begun)))
        record = {"kind": "val", "iteration": 1, "set": "photographs", "scores": {"psnr": number}}
        run.folder.records.write_text(json.dumps(record) + "\n")


def test_results_are_written(
    script: ModuleType, study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(study)
    records = tmp_path / "results" / "records"
    records.mkdir(parents=True)
    (records / "base_seed5.jsonl").touch()  # Of a seed that is not asked for any more.
    lost = study.cells(4)[6].folder.records
    kept = lost.read_text()
    lost.write_text(kept.replace("psnr", "ssim"))
    with pytest.raises(LsfdError, match=r"quantised\+KD, seed 4 \(.*: no PSNR of photographs"):
        script.write_results(study, tmp_path / "results")
    lost.write_text(kept)
    monkeypatch.setattr(script, "onnx_file", lambda run: None)
    monkeypatch.setattr(script, "PAPER_OUTPUT", (48, 48))
    monkeypatch.setattr(script, "ROUNDS", 1)
    script.write_results(study, tmp_path / "results")
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["psnr_y"]["cheap+KD"]["photographs"] == {"4": 7}
    costs: Mapping[str, Any] = results["costs"]
    assert costs["pruned"]["parameters"] < costs["base"]["parameters"]
    assert costs["cheap"]["multiply_adds"] < costs["base"]["multiply_adds"]
    assert "seconds_torch" not in costs["quantised"]  # Simulated there.
    assert "not exported" in (tmp_path / "results" / "table.md").read_text()
    assert (tmp_path / "results" / "orthogonality.png").exists()
    runs = [*study.starts(4), *study.cells(4)]
    copies = {file.stem: file.read_bytes() for file in records.iterdir()}
    assert copies == {run.folder.root.name: run.folder.records.read_bytes() for run in runs}
    assert "base_KD_seed4" in copies and "start_cheap_seed1004" in copies
    assert results["distiller"]["weights"] == {"feature": 0.3, "output": 1.0}
    assert results["distiller"]["kernel"] == 3
