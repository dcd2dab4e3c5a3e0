"""``lsfd compare`` by several processes: shares, the merge, and what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers import write_options

from lsfd.cli import _parser, main
from lsfd.shard import Shard
from lsfd.training import compared
from lsfd.training.collected import collect
from lsfd.training.compare import Comparison
from lsfd.training.folder import RunFolder
from lsfd.training.timing import StepCost

Options = Callable[..., dict[str, Any]]

JOB_FILE = Path(__file__).parent.parent / "scripts" / "slurm_compare.sbatch"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def make(run_options: Options, tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes the option file of a comparison with a folder of its own."""

    def file(host: str) -> Path:
        options = run_options(name="side", train={"total_iter": 4}, val={"val_freq": 4})
        options["path"]["experiments_root"] = str(tmp_path / host / "experiments")
        options["compare"] = {
            "seeds": [0, 1],
            "methods": {
                "Plain": {"distillers": [{"type": "Plain"}]},
                "Mine": {"distillers": [{"type": "LSFD", "kernel": 3}]},
            },
        }
        return write_options(tmp_path / host / "side.yml", options)

    return file


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are not timed: tests of the table do that."""
    monkeypatch.setattr(compared, "step_cost", lambda option_file: StepCost(0.1, 2**30))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(option_file: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lsfd", "compare", "-opt", str(option_file), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def runs_of(option_file: Path) -> Path:
    return option_file.parent / "experiments" / "side"


def scores(folder: Path) -> dict[str, Any]:
    methods = json.loads((folder / "compare.json").read_text())["methods"]
    return {name: values["psnr_y"] for name, values in methods.items()}


def pretend_finished(option_file: Path, *names: str) -> None:
    """Make folders of runs with students in them."""
    comparison = Comparison(option_file)
    for run in comparison.runs:
        if run.folder.root.name in names:
            run.write_options()
            run.folder.root.mkdir()
            run.folder.student.touch()


def test_two_shares_at_once_make_the_table_of_one_process(
    make: Callable[[str], Path],
    no_timing: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # One seed, so that both shares want what the teacher gives for the same samples.
    alone, shared = make("alone"), make("shared")
    shares = [start(shared, "--seeds", "0", "--shard", shard) for shard in ("1/2", "2/2")]
    assert main(["compare", "-opt", str(alone), "--seeds", "0"]) == 0
    outputs = [process.communicate(timeout=280) for process in shares]
    for process, (_, error) in zip(shares, outputs, strict=True):
        assert process.returncode == 0, error
    folder = runs_of(shared)
    assert not (folder / "compare.md").exists(), "a share made a table"
    assert any("2 of 2 runs are finished" in printed for printed, _ in outputs)
    merging = f"lsfd compare -opt {shared} --seeds 0 --merge"
    assert all(merging in printed for printed, _ in outputs)
    assert not list((folder / "teacher_cache").glob("*")), "nobody needs what the teachers gave"

    capsys.readouterr()
    assert main(merging.split()[1:]) == 0
    assert (folder / "compare.md").read_text() in capsys.readouterr().out
    found = scores(folder)
    assert found == scores(runs_of(alone))
    assert {name: list(values["photographs"]) for name, values in found.items()} == {
        "Plain": ["0"], "Mine": ["0"],
    }  # fmt: skip


def test_shares_keep_the_runs_of_a_seed_together(make: Callable[[str], Path]) -> None:
    runs = Comparison(make("host")).runs
    assert [{run.seed for run in Shard(number, 2).block(runs)} for number in (1, 2)] == [{0}, {1}]


def test_a_merge_names_what_is_missing_and_its_share(
    make: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = make("host")
    pretend_finished(file, "Plain_seed0", "Mine_seed0", "Plain_seed1")
    command = ["compare", "-opt", str(file), "--merge", "--set", "train.total_iter=4"]
    assert main(command) == 2
    sentence = "1 of 4 runs are not finished: Mine_seed1; train them with lsfd compare -opt "
    sentence += f"{file} --set train.total_iter=4"
    assert capsys.readouterr().err == f"lsfd: {sentence}\n"
    (runs_of(file) / "shards.txt").write_text("4\n")
    assert main(command) == 2
    assert capsys.readouterr().err == f"lsfd: {sentence} --shard 4/4\n"
    shutil.rmtree(runs_of(file) / "Mine_seed0")
    assert main(command) == 2
    assert capsys.readouterr().err.endswith("--shard 2/4 (and 4/4)\n")
    assert not (runs_of(file) / "compare.md").exists()


def test_a_merge_refuses_runs_of_other_options(
    make: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = make("host")
    pretend_finished(file, "Plain_seed0", "Mine_seed0", "Plain_seed1", "Mine_seed1")
    assert main(["compare", "-opt", str(file), "--merge", "--set", "train.total_iter=5"]) == 2
    assert "was begun with other options" in capsys.readouterr().err


def test_what_the_teachers_gave_stays_while_a_run_of_the_seed_is_missing(
    make: Callable[[str], Path],
) -> None:
    file = make("host")
    pretend_finished(file, "Plain_seed0", "Plain_seed1", "Mine_seed1")
    caches = [runs_of(file) / "teacher_cache" / f"seed{seed}" for seed in (0, 1)]
    for cache in caches:
        cache.mkdir(parents=True)
    comparison = Comparison(file, seeds=[0, 1])
    assert comparison.train([run for run in comparison.runs if run.is_finished()], jobs=1) == 0
    assert [cache.exists() for cache in caches] == [True, False]


def test_a_run_in_the_hands_of_another_process_is_left_alone(
    make: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = make("host")
    mine = next(run for run in Comparison(file).runs if run.folder.root.name == "Mine_seed0")
    mine.write_options()
    with FileLock(mine.lock):
        assert main(["compare", "-opt", str(file), "--shard", "2/4"]) == 2
    assert "another process trains Mine_seed0; wait for it" in capsys.readouterr().err
    assert not mine.folder.root.exists()


@pytest.fixture
def hosts(make: Callable[[str], Path]) -> tuple[Path, Path]:
    """Two hosts' option files; each has finished the runs of one seed."""
    first, second = make("first"), make("second")
    pretend_finished(first, "Plain_seed0", "Mine_seed0")
    pretend_finished(second, "Plain_seed1", "Mine_seed1")
    for file in (first, second):
        for run in Comparison(file).runs:
            if run.is_finished():
                folder = run.folder
                folder.options.write_text(run.loaded.to_yaml())
                folder.states.mkdir()
                (folder.states / "4.state").touch()
                (folder.root / "cost.json").write_text('{"seconds": 0.1, "memory": 1}')
                folder.records.write_text(
                    '{"kind": "run", "data": "photographs: 2 images"}\n'
                    '{"kind": "val", "iteration": 4, "set": "Set5", "scores": {"psnr": 30.5}}\n'
                )
    return first, second


def test_runs_of_hosts_without_a_common_disk_are_merged(
    hosts: tuple[Path, Path], no_timing: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = hosts
    assert main(["compare", "-opt", str(first), "--merge"]) == 2
    assert "2 of 4 runs are not finished: Plain_seed1, Mine_seed1" in capsys.readouterr().err
    assert main(["compare", "-opt", str(first), "--merge", "--from", str(runs_of(second))]) == 0
    assert scores(runs_of(first))["Mine"] == {"Set5": {"0": 30.5, "1": 30.5}}
    assert not (runs_of(second) / "Plain_seed0").exists(), "the other host's folder was changed"


def test_collected_runs_lack_nothing_and_no_checkpoints(hosts: tuple[Path, Path]) -> None:
    first, second = hosts
    comparison = Comparison(first)
    collect(comparison.runs, [runs_of(second)])
    assert comparison.unfinished == []
    copied = RunFolder(runs_of(first) / "Mine_seed1")
    assert (
        copied.records.read_bytes()
        == RunFolder(runs_of(second) / "Mine_seed1").records.read_bytes()
    )
    assert not copied.states.exists() and not (copied.root / "cost.json").exists()
    assert (RunFolder(runs_of(first) / "Mine_seed0").root / "cost.json").exists(), "was here before"
    for run in comparison.runs:
        run.write_options()
    assert not list(runs_of(first).glob(".*.tmp"))


def test_runs_that_do_not_belong_together_are_refused(
    hosts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = hosts
    command = ["compare", "-opt", str(first), "--merge", "--from"]
    assert main([*command, str(second.parent)]) == 2
    assert "holds no finished run of this comparison" in capsys.readouterr().err
    records = RunFolder(runs_of(second) / "Plain_seed1").records
    text = records.read_text()
    records.write_text(text.replace("2 images", "3 images"))
    assert main([*command, str(runs_of(second))]) == 2
    assert "was trained on other images (photographs: 3 images)" in capsys.readouterr().err
    records.write_text(text)
    options = RunFolder(runs_of(second) / "Plain_seed1").options
    options.write_text(options.read_text().replace("num_feat: 8", "num_feat: 16"))
    assert main([*command, str(runs_of(second))]) == 2
    assert "network_g.num_feat is 16, and 8 in the run" in capsys.readouterr().err
    assert not (runs_of(first) / "Plain_seed1").exists()
    assert main(["compare", "-opt", str(first), "--from", "."]) == 2
    assert "goes with --merge" in capsys.readouterr().err


def job(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the job file with an ``lsfd`` that prints its arguments and threads."""
    stub = tmp_path / "bin" / "lsfd"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text('#!/bin/bash\necho "$OMP_NUM_THREADS"\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{stub.parent}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        ["bash", str(JOB_FILE), *arguments], capture_output=True, text=True, env=environment
    )


ARRAY = {
    "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_CPUS_PER_TASK": "6",
}  # fmt: skip


def test_the_job_file_gives_each_task_its_share(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(JOB_FILE)], check=True)
    done = job(tmp_path, "my options.yml", "--methods", "Plain", "--seeds", "0", **ARRAY)
    threads, *arguments = done.stdout.splitlines()
    assert threads == "6"
    parsed = _parser().parse_args(arguments)
    assert (parsed.opt, parsed.methods, parsed.seeds) == (Path("my options.yml"), ["Plain"], [0])
    assert Shard.parse(parsed.shard) == Shard(3, 8)
    one = job(tmp_path, "a.yml", **{**ARRAY, "SLURM_ARRAY_TASK_COUNT": "1", "SHARDS": "4"})
    assert _parser().parse_args(one.stdout.splitlines()[1:]).shard == "3/4"


def test_the_job_file_says_how_it_is_started(tmp_path: Path) -> None:
    for arguments, variables in (((), ARRAY), (("a.yml",), {})):
        done = job(tmp_path, *arguments, **variables)
        assert done.returncode == 2 and "usage: sbatch" in done.stderr and not done.stdout


def test_the_commands_in_the_job_file_are_ours() -> None:
    text = JOB_FILE.read_text()
    given = text.split('--wrap "lsfd ')[1].split('"')[0].split()
    parsed = _parser().parse_args(given)
    assert parsed.merge and (JOB_FILE.parent.parent / parsed.opt).exists()
    assert "#SBATCH --array=1-" in text, "shares are counted from 1"
