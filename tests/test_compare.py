"""``lsfd compare``: what is planned, trained, resumed, and told."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_options
from matplotlib.figure import Figure
from scipy import stats

from lsfd.atomic import write_text
from lsfd.cli import main
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.locks import locked
from lsfd.reporting.comparison import MethodResult, comparison_table, gain, save_gains
from lsfd.reporting.effort import save_times
from lsfd.reporting.significance import advantage, advantage_table
from lsfd.training import compared
from lsfd.training.compare import Comparison
from lsfd.training.compared import keep_comparison
from lsfd.training.planned import plan_runs
from lsfd.training.records import read_records
from lsfd.training.timing import StepCost

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def option_file(run_options: Options, tmp_path: Path) -> Path:
    options = run_options(name="side")
    options["compare"] = {
        "seeds": [0, 1],
        "methods": {
            "Plain": {"distillers": [{"type": "Plain"}]},
            "Mine": {"distillers": [{"type": "LSFD", "kernel": 3}], "train": {"ema_decay": 0}},
        },
    }
    return write_options(tmp_path / "side.yml", options)


def test_every_method_with_every_seed(option_file: Path, tmp_path: Path) -> None:
    runs = plan_runs(option_file, ["train.total_iter=6"])
    assert [(run.seed, run.method) for run in runs] == [
        (0, "Plain"), (0, "Mine"), (1, "Plain"), (1, "Mine"),
    ]  # fmt: skip
    mine = runs[3].loaded.options
    assert (mine.name, mine.manual_seed, mine.train.total_iter) == ("Mine_seed1", 1, 6)
    assert mine.train.ema_decay == 0 and mine.train.precision == "fp32"
    assert mine.compare is None
    assert runs[3].folder.root == tmp_path / "experiments" / "side" / "Mine_seed1"
    caches = {run.loaded.options.path.teacher_cache for run in runs}
    assert len(caches) == 2 and None not in caches
    uncached = plan_runs(option_file, keep_teacher_results=False)
    assert {run.loaded.options.path.teacher_cache for run in uncached} == {None}


def test_teacher_results_stay_while_a_run_of_other_methods_needs_them(option_file: Path) -> None:
    comparison = Comparison(option_file, methods=["Mine"])
    for run in comparison.runs:
        write_text(run.folder.student, "finished")
    kept = comparison.folder / "teacher_cache" / "seed1"
    kept.mkdir(parents=True)
    with locked(comparison.folder / ".Other_seed1.lock"):
        comparison.forget_teacher_results(1)
        assert kept.exists()
    comparison.forget_teacher_results(1)
    assert not kept.exists()


def test_any_method_may_be_asked_for(option_file: Path) -> None:
    (run,) = plan_runs(option_file, methods=["FitNet"], seeds=[5])
    assert run.loaded.options.distillers[0].type == "FitNet"
    with pytest.raises(LsfdError, match=r"compare\.methods: 'FitNte' .* did you mean 'FitNet'"):
        plan_runs(option_file, methods=["FitNte"])


def test_a_method_may_have_a_file(option_file: Path) -> None:
    (option_file.parent / "mine.yml").write_text(
        "name: other\ntrain: {total_iter: 999}\ndistillers: [{type: LSFD, kernel: 5}]\n"
        "path: {pretrain_network_g: never.pth}\n"
    )
    listed = f"compare.methods.Mine={option_file.parent / 'mine.yml'}"
    mine = plan_runs(option_file, [listed], ["Mine"], [0])[0].loaded.options
    assert mine.distillers[0].arguments == {"kernel": 5}
    assert mine.name == "Mine_seed0" and mine.train.total_iter == 12
    assert mine.path.pretrain_network_g is None and len(mine.network_t) == 1


def test_mistakes_name_the_method(option_file: Path, run_options: Options, tmp_path: Path) -> None:
    text = option_file.read_text().replace("ema_decay: 0\n", "ema_dekay: 0\n")
    option_file.write_text(text)
    with pytest.raises(LsfdError, match=r"side\.yml, compare\.methods\.Mine, train\.ema_dekay"):
        plan_runs(option_file)
    with pytest.raises(LsfdError, match="no section 'compare'"):
        plan_runs(write_options(tmp_path / "none.yml", run_options()))


def test_a_comparison_is_no_training_file(
    option_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-opt", str(option_file)]) == 2
    assert "lsfd compare" in capsys.readouterr().err


def command(option_file: Path, *arguments: str) -> list[str]:
    given = ["compare", "-opt", str(option_file), "--jobs", "2", *arguments]
    return [sys.executable, "-m", "lsfd", *given]


def test_from_command_to_table(option_file: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    once = ("--seeds", "1")
    done = subprocess.run(
        command(option_file, *once, "-o", str(tmp_path / "out")),
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert (out / "compare.md").read_text() in done.stdout
    numbers = json.loads((out / "compare.json").read_text())
    records = read_records(out / "records" / "Mine_seed1.jsonl")
    last = [record for record in records if record["kind"] == "val"][-1]
    mine = numbers["methods"]["Mine"]
    assert mine["psnr_y"]["photographs"]["1"] == last["scores"]["psnr"]
    assert mine["seconds_per_step"] > 0 and mine["peak_memory_bytes"] > 2**26
    assert "| over Plain " in done.stdout, "by image, too"
    assert last["images"].keys() == {"astronaut", "chelsea"}
    assert np.mean([its["psnr"] for its in last["images"].values()]) == last["scores"]["psnr"]
    assert read_image(out / "compare.png").std() > 5
    root = tmp_path / "experiments" / "side"
    assert not list((root / "teacher_cache").glob("*"))
    assert numbers["trained_on"] == [next(its["hardware"] for its in records if "hardware" in its)]
    students = {
        run.folder.student: run.folder.student.stat() for run in plan_runs(option_file, seeds=[1])
    }
    subprocess.run(command(option_file, *once), capture_output=True, env=environment, check=True)
    assert {path: path.stat() for path in students} == students
    changed = subprocess.run(
        command(option_file, *once, "--set", "train.total_iter=7"),
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert changed.returncode == 2
    assert "was begun with other options" in changed.stderr


@pytest.mark.parametrize(("part", "what"), [("fingerprint", "images"), ("teachers", "teachers")])
def test_runs_of_other_images_or_teachers_are_not_mixed(
    option_file: Path, tmp_path: Path, part: str, what: str
) -> None:
    runs = plan_runs(option_file)
    for number, run in enumerate(runs):
        run.folder.root.mkdir(parents=True)
        record = {"kind": "run", "data": "-", "fingerprint": "a", "teachers": ["b"]}
        record[part] = str(number // 3)
        if run.method == "Plain":
            record["teachers"] = []
        run.folder.records.write_text(json.dumps(record) + "\n")
    with pytest.raises(LsfdError, match=rf"Mine_seed1 was trained with other {what} than .*_seed0"):
        keep_comparison(tmp_path / "out", runs)
    assert not (tmp_path / "out").exists()


def test_costs_are_measured_in_turns_once_and_their_median_counts(
    option_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = plan_runs(option_file, seeds=[0])
    seconds, asked = iter([1.0, 20.0, 3.0, 9.0, 2.0, 8.0]), []

    def cost(file: Path) -> StepCost:
        asked.append(file)
        return StepCost(next(seconds), len(asked))

    monkeypatch.setattr(compared, "step_cost", cost)
    for run in runs:
        run.folder.root.mkdir(parents=True)
    compared.measure_costs(runs)
    assert asked == 3 * [run.option_file for run in runs]
    found = [json.loads((run.folder.root / "cost.json").read_text()) for run in runs]
    assert found == [{"seconds": 2.0, "memory": 5}, {"seconds": 9.0, "memory": 6}]
    compared.measure_costs(runs)
    assert len(asked) == 6


def test_stopped_and_gone_on(option_file: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    many = ("--set", "train.total_iter=200", "logger.print_freq=5", "val.val_freq=200")
    few = ("--methods", "Plain", "--seeds", "0")
    process = subprocess.Popen(command(option_file, *many, *few), env=environment)
    records = tmp_path / "experiments" / "side" / "Plain_seed0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not any(record["kind"] == "train" for record in read_records(records)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 128 + signal.SIGINT
    states = list((records.parent / "training_states").glob("*.state"))
    assert states and not (records.parent / "Plain_seed0.safetensors").exists()
    again = subprocess.run(command(option_file, *many, *few), env=environment, check=True)
    assert again.returncode == 0
    assert any(record.get("resumed") for record in read_records(records))


def test_a_failed_run_is_named_and_the_others_go_on(option_file: Path, tmp_path: Path) -> None:
    text = option_file.read_text().replace("kernel: 3", "taps: [body.77]")
    option_file.write_text(text)
    done = subprocess.run(
        command(option_file, "--seeds", "0"), capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "1 run(s) failed: Mine_seed0" in done.stderr and "body.77" in done.stderr
    assert (tmp_path / "experiments" / "side" / "Plain_seed0" / "Plain_seed0.safetensors").exists()


def test_students_in_a_row_take_their_time_together(
    option_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compared, "step_cost", lambda _: StepCost(0.5, 2**30))
    runs = plan_runs(option_file, ["train.generations=3"], ["Plain"], [0])
    scores = {"psnr": 30.0}
    last = {"kind": "val", "iteration": 12, "set": "Set5", "scores": scores}
    runs[0].folder.root.mkdir(parents=True)
    runs[0].folder.records.write_text(json.dumps(last) + "\n")
    compared.keep_comparison(tmp_path / "out", runs)
    _, (plain,) = compared.read_comparison(tmp_path / "out")
    assert (plain.seconds, plain.training_seconds) == (0.5, 3 * 12 * 0.5)


def test_gain_is_paired_and_its_interval_is_students() -> None:
    found = gain({0: 30.1, 1: 30.3, 2: 30.2}, {0: 30.0, 1: 30.1, 2: 30.1, 7: 99.0})
    assert found is not None and found.half_width is not None
    assert found.mean == pytest.approx(0.4 / 3)
    differences = np.array([0.1, 0.2, 0.1])
    # 4.303 is the 97.5 % quantile of Student's t with two degrees of freedom in printed tables.
    expected = 4.303 * differences.std(ddof=1) / np.sqrt(3)
    assert found.half_width == pytest.approx(expected, rel=1e-3)
    assert not found.is_certain
    single = gain({4: 1.0}, {4: 0.5})
    assert single is not None and single.half_width is None and not single.is_certain
    assert gain({1: 1.0}, {2: 1.0}) is None


def results() -> list[MethodResult]:
    return [
        MethodResult("Plain", {"Set5": {0: 30.0, 1: 30.2}}, 0.1, 2**30),
        MethodResult("Better", {"Set5": {0: 30.5, 1: 30.7}}, 0.2, None),
        MethodResult("Unfinished", {"Set5": {1: 30.1}}),
    ]


def test_table_shows_spread_and_gain() -> None:
    lines = comparison_table(results(), "Plain").splitlines()
    diverged = MethodResult("Diverged", {})  # Its scores were not finite.
    others = comparison_table([diverged, *results()], "Plain").splitlines()
    assert others[0] == lines[0] and others[3:] == lines[2:]
    assert "30.100 ± 0.141" in lines[2] and "1.00" in lines[2]
    assert "30.600 ± 0.141" in lines[3] and "+0.500 ± 0.000" in lines[3]
    assert "-0.100" in lines[4]
    assert not any("seeds" in line for line in lines[:4])


def test_a_cell_of_fewer_seeds_says_so() -> None:
    scores = {"Set5": {0: 30.0, 1: 31.0}, "Set14": {0: 27.0, 1: 28.0}}
    ssim = {name: dict.fromkeys(by_seed, 0.85) for name, by_seed in scores.items()}
    one = {**scores, "Set14": {1: 28.5}}
    plain = MethodResult("Plain", scores, ssim=ssim)
    lines = comparison_table([plain, MethodResult("One", one, ssim=ssim)], "Plain").splitlines()
    cells = [cell.strip() for cell in lines[3].split("|")]
    assert cells[2] == "30.500 ± 0.707 / 0.8500"
    assert cells[4:6] == ["28.500 / 0.8500 (1 of 2 seeds)", "+0.500 (1 of 2 seeds)"]
    # Nobody has a score of the third seed, which was trained all the same.
    trained = MethodResult("Trained", {}, losses={0: {}, 1: {}, 2: {}})
    assert "(2 of 3 seeds)" in comparison_table([plain, trained], "Plain").splitlines()[2]


def with_images(name: str, gain_of_seed: float, gain_of_image: float) -> MethodResult:
    """A method with 3 seeds and 20 images, of which the first seed and half the images gain."""
    scores = {
        seed: {
            f"image{number}": 30.0
            + number
            + gain_of_seed * (seed == 0)
            + gain_of_image * (number % 2)
            for number in range(20)
        }
        for seed in range(3)
    }
    means = {seed: float(np.mean(list(its.values()))) for seed, its in scores.items()}
    return MethodResult(name, {"Set": means}, images={"Set": scores})


def test_an_advantage_is_paired_over_seeds_and_images() -> None:
    plain = with_images("Plain", 0, 0).images["Set"]
    even = advantage(with_images("Even", 0, 0.1).images["Set"], plain)
    assert even is not None and even.mean == pytest.approx(0.05) and even.images == 0.5
    # Of 20 images half gain: the mean's standard error is that of a coin, 0.05 / sqrt(19).
    assert even.half_width == pytest.approx(stats.t.ppf(0.975, 19) * 0.05 / 19**0.5)
    assert even.is_certain and "?" not in str(even)
    uneven = advantage(with_images("Uneven", 0.3, 0).images["Set"], plain)
    assert uneven is not None and uneven.mean == pytest.approx(0.1) and uneven.images == 1
    # One of three seeds gains: what is left is Student's t over three.
    assert uneven.half_width == pytest.approx(stats.t.ppf(0.975, 2) * 0.1)
    assert not uneven.is_certain and str(uneven).endswith("100 % ?")
    same = advantage(plain, plain)
    assert same is not None and (same.mean, same.half_width, same.images) == (0, 0, 0)
    alone = advantage({0: {"a": 30.2, "b": 30.2}}, {0: {"a": 30.1, "b": 30.0}})
    assert alone is not None and not alone.is_certain and str(alone) == "+0.150, 100 % ?"
    flawless = {seed: {**its, "flat": math.inf} for seed, its in plain.items()}
    assert advantage(flawless, flawless) == same, "infinite scores have no difference"
    assert advantage(plain, {}) is None and advantage({9: plain[0]}, plain) is None
    assert advantage({0: {"other": 1.0}}, plain) is None


@pytest.mark.parametrize(
    ("of_seed", "of_image", "of_both"), [(0.05, 0.1, 0.05), (0.05, 0.0, 0.0), (0.0, 0.1, 0.05)]
)
def test_an_interval_holds_the_truth_as_often_as_it_says(
    of_seed: float, of_image: float, of_both: float
) -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        gains = generator.normal(0, of_both, (3, 50))
        gains += generator.normal(0, of_seed, (3, 1)) + generator.normal(0, of_image, (1, 50))
        found = advantage(
            {
                seed: {str(image): gain for image, gain in enumerate(row)}
                for seed, row in enumerate(gains)
            },
            {seed: {str(image): 0.0 for image in range(50)} for seed in range(3)},
        )
        assert found is not None
        held += not found.is_certain
    assert 0.90 <= held / 400 <= 0.99


def test_the_table_of_advantages_has_a_column_for_each_set() -> None:
    results = [with_images("Plain", 0, 0), with_images("Output", 0, 0.1)]
    scores = {result.name: result.images for result in results}
    for rival, other, mean in (("Plain", "Output", "+0.050"), ("Output", "Plain", "-0.050")):
        header, _, *rows = (advantage_table(scores, rival, 3) or "").splitlines()
        assert [cell.strip() for cell in header.split("|")] == ["", f"over {rival}", "Set", ""]
        assert len(rows) == 1 and rows[0].startswith(f"| {other} ") and mean in rows[0]
    lacking = {**scores, "Short": {"Set": {seed: scores["Plain"]["Set"][seed] for seed in (0, 1)}}}
    *_, complete, short, end = (advantage_table(lacking, "Plain", 3) or "").split("\n")
    assert "(2 of 3 seeds)" in short and "seeds" not in complete and not end
    # A fourth seed, of which nobody has a score.
    assert (advantage_table(scores, "Plain", 4) or "").count("(3 of 4 seeds)") == 1
    assert advantage_table(scores, "Absent", 3) is None
    assert advantage_table({"Plain": {}, "Output": {}}, "Plain", 3) is None


def test_who_lacks_a_set_is_not_ranked_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set14 is the harder one: without it a mean over the sets would be higher."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    methods = [
        MethodResult("Plain", {"Set5": {0: 30.0}, "Set14": {0: 27.0}}, 0.1, None, steps=100),
        MethodResult("Both", {"Set5": {0: 30.2}, "Set14": {0: 27.2}}, 0.2, None, steps=100),
        MethodResult("Half", {"Set5": {0: 30.3}}, 0.3, None, steps=100),
        MethodResult("More", {"Set5": {0: 30.1}, "Set14": {0: 27}, "B": {0: 9}}, 0.4, steps=100),
    ]
    save_gains(methods, "Plain", tmp_path / "gains.png", "title")
    save_times(methods, "Plain", tmp_path / "time.png", "title")
    gains, times = figures
    names = [label.get_text() for label in gains.axes[0].get_yticklabels()]
    assert names == ["Half", "More", "Both"], "the best on top"
    (axes,) = times.axes
    assert {text.get_text() for text in axes.texts} == {"Plain", "Both", "More"}
    assert sorted(axes.lines[0].get_ydata()) == pytest.approx([28.5, 28.55, 28.7])
    assert axes.get_ylabel().endswith("mean of Set5, Set14")
    save_times([MethodResult("Plain", {}, 0.1, steps=100)], "Plain", tmp_path / "x.png", "title")


def test_picture_is_drawn(tmp_path: Path) -> None:
    save_gains(results(), "Plain", tmp_path / "gains.png", "title")
    lost = [MethodResult("Plain", {}), MethodResult("LSFD", {})]
    save_gains(lost, "Plain", tmp_path / "nothing.png", "title")
    assert (tmp_path / "nothing.png").exists()
    assert read_image(tmp_path / "gains.png").std() > 5
