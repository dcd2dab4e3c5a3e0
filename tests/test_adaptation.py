"""The script that compares how students adapt to degraded images."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lsfd.atomic import write_text
from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard
from lsfd.training.planned import PlannedRun
from lsfd.training.teacher_cache import weights_digest

SCRIPT = Path(__file__).parent.parent / "scripts" / "adaptation.py"
BEFORE = {"Set5 degraded": 27.0, "Set14 degraded": 25.0, "Set5": 30.0, "Set14": 28.0}
ARCHITECTURE = {
    "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 2, "upscale": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def adaptation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adaptation", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["adaptation"] = module  # Where dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


def changed(*changes: float) -> dict[str, float]:
    """The scores before, plus changes."""
    return {
        name: value + change for (name, value), change in zip(BEFORE.items(), changes, strict=True)
    }


@pytest.fixture
def result(adaptation: ModuleType) -> Any:
    after = {
        "Fine-tuning": {0: changed(0.5, 0.3, -1.0, -0.6), 1: changed(0.7, 0.5, -1.2, -0.8)},
        "FReTAL": {0: changed(0.4, 0.2, -0.1, -0.1), 1: changed(0.4, 0.4, -0.3, -0.1)},
    }
    return adaptation.Adaptation("noise", BEFORE, after)


def test_changes_are_paired_with_the_scores_before(result: Any) -> None:
    new, old = ("Set5 degraded", "Set14 degraded"), ("Set5", "Set14")
    assert result.changes("Fine-tuning", new) == pytest.approx([0.4, 0.6])
    assert result.changes("FReTAL", old) == pytest.approx([-0.1, -0.2])


def test_the_table_says_gain_and_forgetting(adaptation: ModuleType, result: Any) -> None:
    lines = adaptation.table([result]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][2:] == ["new: Set5", "new: Set14", "old: Set5", "old: Set14"]
    assert cells[2] == ["noise 10", "before", "27.00", "25.00", "30.00", "28.00"]
    assert cells[3][1:4] == ["Fine-tuning", "+0.600 ± 0.141", "+0.400 ± 0.141"]
    assert cells[4][1] == "FReTAL" and cells[4][4] == "-0.200 ± 0.141"


def test_one_seed_has_no_deviation(adaptation: ModuleType) -> None:
    assert adaptation.spread([-0.25]) == "-0.250"


def test_the_picture_is_drawn(adaptation: ModuleType, result: Any, tmp_path: Path) -> None:
    adaptation.draw([result, result], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "it's a student, {of} mine.safetensors"


@pytest.fixture
def plans(
    adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path
) -> dict[str, Any]:
    """The runs of two kinds of images, with two seeds."""
    monkeypatch.setenv("LSFD_DATA", "/data")
    card = StudentCard(architecture=ARCHITECTURE, scale=4)
    arguments = argparse.Namespace(experiments=tmp_path, source=source, iterations=300)
    arguments.seeds, arguments.set = [0, 5], ["train.warmup_iter=3"]
    return {kind: adaptation.plan(kind, card, arguments) for kind in ("blur", "jpeg")}


def test_all_runs_of_a_kind_share_budget_and_images(
    adaptation: ModuleType, plans: dict[str, Any], source: Path
) -> None:
    runs = adaptation.by_seed(plans.values())
    assert [run.seed for run in runs] == [0] * 6 + [5] * 6
    assert len({run.folder.root for run in runs}) == 12
    for kind, strengths in (("blur", {"blur": 1.6}), ("jpeg", {"jpeg": 40})):
        assert [run.method for run in plans[kind][:3]] == ["Fine-tuning", "Output", "FReTAL"]
        for run in plans[kind]:
            options = run.loaded.options
            sets = [options.datasets.train, *options.datasets.validation.values()]
            found = [s.degradation and s.degradation.model_dump(exclude_none=True) for s in sets]
            assert found == [strengths, strengths, None, strengths, None]
            names = [s.name for s in sets[1:]]
            assert names == ["Set5 degraded", "Set5", "Set14 degraded", "Set14"]
            assert (options.train.total_iter, options.train.warmup_iter) == (300, 3)
            assert options.path.pretrain_network_g == str(source)
            assert options.path.pretrain_network_t == [str(source)]
            assert options.path.teacher_cache is None
            for network in (options.network_g, options.network_t[0]):
                assert {"type": network.type, **network.arguments} == ARCHITECTURE
            changing = {"name", "manual_seed", "distillers"}
            same = {key: value for key, value in run.loaded.raw.items() if key not in changing}
            assert json.dumps(same) == json.dumps(
                {k: v for k, v in plans[kind][0].loaded.raw.items() if k not in changing}
            )


def finish(runs: Sequence[PlannedRun], *teachers: str) -> None:
    """Leave the records that runs leave."""
    for run in runs:
        run.folder.root.mkdir(parents=True)
        begun = {"kind": "run", "data": "images", "teachers": teachers}
        ends = [
            {"kind": "val", "iteration": 300, "set": name, "scores": {"psnr": value}}
            for name, value in BEFORE.items()
        ]
        write_text(run.folder.records, "".join(json.dumps(line) + "\n" for line in (begun, *ends)))


def test_runs_of_another_student_are_refused(
    adaptation: ModuleType, plans: dict[str, Any], tmp_path: Path
) -> None:
    first, other = build_network(ARCHITECTURE), build_network(ARCHITECTURE)
    blur, jpeg = plans["blur"], plans["jpeg"]
    adaptation.check_source(tmp_path / "other.safetensors", other, blur)  # Nothing came of it.
    adaptation.check_source(tmp_path / "first.safetensors", first, blur)
    finish(blur, weights_digest(first))
    adaptation.check_source(tmp_path / "first.safetensors", first, blur)
    refused = r"adapt_x4_blur began as another student .*other\.safetensors"
    with pytest.raises(LsfdError, match=refused):
        adaptation.check_source(tmp_path / "other.safetensors", other, blur)
    for run in blur:  # As if only runs without a teacher had begun, and been stopped.
        run.folder.records.unlink()
    with pytest.raises(LsfdError, match=refused):
        adaptation.check_source(tmp_path / "other.safetensors", other, blur)
    finish(jpeg, weights_digest(first))  # By a version that left no note.
    with pytest.raises(LsfdError, match="adapt_x4_jpeg began as another student"):
        adaptation.check_source(tmp_path / "other.safetensors", other, jpeg)


def test_records_are_kept_whole(
    adaptation: ModuleType, plans: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(plans["blur"])
    results = [adaptation.Adaptation("blur", BEFORE, adaptation.scores_after(plans["blur"]))]
    arguments = argparse.Namespace(output=tmp_path / "results", source=tmp_path / "student")
    card = StudentCard(architecture=ARCHITECTURE, scale=4)
    monkeypatch.setattr(shutil, "copyfile", None)  # A kill would leave half a file.
    adaptation.write_results(results, {"blur": plans["blur"]}, card, arguments)
    for run in plans["blur"]:
        kept = tmp_path / "results" / "records" / f"blur_{run.folder.root.name}.jsonl"
        assert kept.read_bytes() == run.folder.records.read_bytes()


def test_a_missing_score_is_named(adaptation: ModuleType, plans: dict[str, Any]) -> None:
    finish(plans["blur"])
    assert adaptation.scores_after(plans["blur"])["Output"] == {0: BEFORE, 5: BEFORE}
    records = plans["blur"][4].folder.records
    records.write_text(records.read_text().replace("Set5 degraded", "Set6"))
    with pytest.raises(LsfdError, match=r"Output, seed 5 \(.*: no PSNR of Set5 degraded"):
        adaptation.scores_after(plans["blur"])
