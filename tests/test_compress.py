"""``lsfd compress``: from a teacher and a budget to a fine-tuned network, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_run

from lsfd.cli import main
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.student_file import load_any, read_student
from lsfd.networks.weights import read_state_dict
from lsfd.training.folder import RunFolder
from lsfd.training.records import read_records

Options = Callable[..., dict[str, Any]]
SECTION = {
    "group_size": 3,
    "depths": [0, 1],
    "widths": [0.5],
    "tail_widths": [0.5],
    "patches": 4,
    "held_out": 2,
    "iterations": 3,
    "batch_size": 2,
}
PARAMETERS = ["--budget", "params=14k"]


@pytest.fixture
def option_file(run_options: Options, tmp_path: Path) -> Path:
    changes = {
        "compress": SECTION,
        "distillers": [{"type": "Output"}],
        "train": {"total_iter": 4},
        "val": {"val_freq": 4},
    }
    return write_run(tmp_path, run_options(**changes))


def compress(option_file: Path, *arguments: str) -> int:
    return main(["compress", "-opt", str(option_file), *arguments])


def root_of(option_file: Path) -> Path:
    return option_file.parent / "experiments" / "tiny"


def assembled_of(option_file: Path, name: str) -> Path:
    (path,) = root_of(option_file).glob(f"{name}_assembled_*.safetensors")
    return path


def candidates_of(option_file: Path) -> dict[str, int]:
    """Every candidate's file with the time when it was written."""
    found = (root_of(option_file) / "candidates").rglob("*.safetensors")
    return {path.name: path.stat().st_mtime_ns for path in found}


def test_from_teacher_and_budget_to_student(
    option_file: Path, teacher_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(option_file, *PARAMETERS) == 0
    shown = capsys.readouterr().out
    assert "blocks 1-3" in shown and "| whole network" in shown
    root, name = root_of(option_file), "tiny_params_14000"
    student, card = read_student(RunFolder(root / name).student)
    assert count_parameters(student) <= 14_000
    assert card.method == "Output" and card.iterations == 4
    assert card.architecture["type"] == "SlimEDSR"
    # It began as what was assembled, and the rest of that is the teacher's.
    assembled, its_card = read_student(assembled_of(option_file, name))
    assert its_card.architecture == card.architecture and its_card.method == "BlockWise"
    teacher = read_state_dict(teacher_file)
    for key in ("conv_first.weight", "conv_after_body.bias"):
        assert torch.equal(assembled.state_dict()[key], teacher[key])
    assert any(
        not torch.equal(one, other)
        for one, other in zip(student.parameters(), assembled.parameters(), strict=True)
    )
    record = json.loads((root / f"{name}.json").read_text())
    assert record["cost"] == count_parameters(student) and record["assembled_error"] > 0
    assert f"{record['cost']:,} parameters, within params=14000" in shown


def test_the_same_command_trains_nothing_anew(option_file: Path) -> None:
    assert compress(option_file, *PARAMETERS) == 0
    candidates = candidates_of(option_file)
    folder = RunFolder(root_of(option_file) / "tiny_params_14000")
    before = folder.student.stat().st_mtime_ns
    assert compress(option_file, *PARAMETERS) == 0
    assert candidates_of(option_file) == candidates
    assert folder.student.stat().st_mtime_ns == before


def test_another_budget_takes_the_same_candidates(option_file: Path) -> None:
    assert compress(option_file, *PARAMETERS, "--no-finetune") == 0
    candidates = candidates_of(option_file)
    size = "@64x48"
    assert compress(option_file, "--budget", f"madds=10M{size}", "--no-finetune") == 0
    assert candidates_of(option_file) == candidates
    network, _ = load_any(assembled_of(option_file, "tiny_madds_10000000_64x48"))
    assert multiply_adds(network, 24, 32) <= 10e6


def test_more_shapes_train_only_those(option_file: Path) -> None:
    assert compress(option_file, *PARAMETERS, "--no-finetune") == 0
    before = candidates_of(option_file)
    more = ["--set", "compress.widths=[0.25, 0.5]"]
    assert compress(option_file, *PARAMETERS, "--no-finetune", *more) == 0
    after = candidates_of(option_file)
    assert len(after) == len(before) + 2 * 2  # Depths 1 and 3 of two groups.
    assert all(after[name] == time for name, time in before.items())


def test_a_finished_student_of_other_candidates_is_not_passed_off(
    option_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(option_file, *PARAMETERS) == 0
    assert compress(option_file, *PARAMETERS, "--set", "compress.iterations=2") == 2
    assert "was begun with other options" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", ["compress.iterations=2", "manual_seed=4", "datasets.train.gt_size=28"]
)
def test_candidates_of_other_options_are_not_taken(option_file: Path, change: str) -> None:
    for extra in ([], ["--set", change]):
        assert compress(option_file, *PARAMETERS, "--no-finetune", *extra) == 0
    assert len(list((root_of(option_file) / "candidates").iterdir())) == 2


def test_an_interrupted_command_goes_on(option_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsfd.compression import candidates

    calls = iter(range(100))
    train_candidate = candidates.train_candidate

    def interrupted(*arguments: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        train_candidate(*arguments)

    monkeypatch.setattr(candidates, "train_candidate", interrupted)
    assert compress(option_file, *PARAMETERS) == 130
    first = candidates_of(option_file)
    assert len(first) == 3
    assert compress(option_file, *PARAMETERS) == 0
    second = candidates_of(option_file)
    assert len(second) == 2 * 4 + 1
    assert all(second[name] == time for name, time in first.items())


def test_a_latency_once_measured_stays(option_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = ["--budget", "latency_ms=1e4@64x48", "--no-finetune"]
    assert compress(option_file, *budget) == 0
    chosen = root_of(option_file) / "tiny_latency_ms_10000_64x48.json"
    before = chosen.read_text()
    monkeypatch.setattr("lsfd.compression.costs.latency", lambda *_, **__: 1e9)
    assert compress(option_file, *budget) == 0
    assert chosen.read_text() == before
    # At this speed of the machine there is time for the teacher itself.
    assert json.loads(before)["error"] == 0


def test_what_is_assembled_can_be_trained_by_its_option_file(
    option_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(option_file, *PARAMETERS, "--no-finetune") == 0
    shown = capsys.readouterr().out
    root = root_of(option_file)
    written = root / "tiny_params_14000.yml"
    assert f"train it with: lsfd train -opt {written}" in shown
    assert not (root / "tiny_params_14000").exists()
    assert main(["train", "-opt", str(written)]) == 0
    records = read_records(root / "tiny_params_14000" / "metrics.jsonl")
    assert records[-1]["iteration"] == 4


def test_an_unlimited_budget_gives_the_teacher(option_file: Path, teacher_file: Path) -> None:
    assert compress(option_file, "--budget", "params=1M", "--no-finetune") == 0
    network, _ = load_any(assembled_of(option_file, "tiny_params_1000000"))
    weights = read_state_dict(teacher_file)
    assert len(weights) == len(network.state_dict())
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budget", "300k"], "lsfd: --budget 300k: has no '='"),
        (["--budget", "params=10"], "--budget params=10: cannot be kept; the smallest network"),
        ([*PARAMETERS, "--set", "compress=null"], "has no section 'compress'"),
        ([*PARAMETERS, "--set", "compress.group_sise=2"], "did you mean 'group_size'"),
        ([*PARAMETERS, "--set", "compress.widths=[1.5]"], "compress.widths.0"),
        (
            [*PARAMETERS, "--set", "network_t=null", "path.pretrain_network_t=null",
             "distillers=null"],
            "compression needs one teacher, no more and no less",
        ),
    ],
)  # fmt: skip
def test_mistakes_get_a_sentence(
    option_file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert compress(option_file, *arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["params=1k", "madds=100k@64x48", "latency_ms=1e-6@64x48"])
def test_a_budget_out_of_reach_is_found_before_anything_is_trained(
    option_file: Path, capsys: pytest.CaptureFixture[str], budget: str
) -> None:
    assert compress(option_file, "--budget", budget) == 2
    assert "cannot be kept; the smallest network" in capsys.readouterr().err
    assert not candidates_of(option_file)


def test_another_teacher_is_refused(
    run_options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lsfd.networks.build import build_network

    network = {"type": "MSRResNet", "num_feat": 8, "num_block": 2, "upscale": 2}
    file = tmp_path / "msr.pth"
    torch.save({"params": build_network(network).state_dict()}, file)
    options = run_options(
        compress=SECTION, network_t=network, path={"pretrain_network_t": str(file)}
    )
    assert compress(write_run(tmp_path, options), *PARAMETERS) == 2
    assert "network_t: the teacher is MSRResNet; only an EDSR" in capsys.readouterr().err


def test_train_points_at_compress(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-opt", str(option_file)]) == 2
    assert "compress: this file is for `lsfd compress`" in capsys.readouterr().err
