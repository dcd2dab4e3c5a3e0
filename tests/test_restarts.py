"""Processes that are killed while they train together, and jobs that are started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    LONGEST,
    assert_same,
    exit_status,
    finish_pair,
    lasting_records,
    output_of,
    run_folder,
    start_pair,
    torchrun,
    wait_for,
    write_options,
    write_run,
)

from lsfd.training import distributed
from lsfd.training.checkpoint import load_checkpoint
from lsfd.training.records import read_records
from lsfd.training.run import train

Options = Callable[..., dict[str, Any]]
SLURM = {
    "SLURM_PROCID": "{rank}",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "{rank}",
    "SLURM_NODELIST": "localhost",
    "SLURM_JOB_ID": "7",
}


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)


def starts(option_file: Path) -> list[bool]:
    """Whether each start of a run went on from a checkpoint."""
    records = read_records(run_folder(option_file).records)
    return [record["resumed"] for record in records if record["kind"] == "run"]


def assert_same_end(option_file: Path, reference: Path, iterations: int) -> None:
    """Compare the last checkpoints and all that was measured of two runs, bit for bit."""
    ends = [run_folder(file).states / f"{iterations}.state" for file in (option_file, reference)]
    assert_same(*(load_checkpoint(end) for end in ends))
    measured = [lasting_records(run_folder(file)) for file in (option_file, reference)]
    assert measured[0] == measured[1]


def worker(parent: int, rank: int) -> int:
    """The process of a rank that torchrun has started most recently."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                state, its_parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                variables = (path / "environ").read_bytes().split(b"\0")
            except OSError:  # It ended meanwhile.
                continue
            if state != "Z" and int(its_parent) == parent and f"RANK={rank}".encode() in variables:
                return int(path.name)
        time.sleep(0.01)
    raise AssertionError(f"torchrun has no process of rank {rank}")


def test_killed_processes_are_restarted_and_change_nothing(
    run_options: Options, tmp_path: Path
) -> None:
    options = run_options(train={"total_iter": 60})
    whole, killed = (write_run(tmp_path / name, options) for name in ("whole", "killed"))
    finish_pair(whole)
    # Not told to resume: a restart goes on by itself.
    with torchrun(killed, ("--max-restarts=3",)) as process:
        for rank, moment in ((1, "8/60: "), (0, "28/60: ")):
            wait_for(killed, moment)
            os.kill(worker(process.pid, rank), signal.SIGKILL)
        assert process.wait(LONGEST) == 0, output_of(killed).read_text()
    assert starts(killed) == [False, True, True]
    assert_same_end(killed, whole, 60)


def test_a_job_that_slurm_stops_and_requeues_goes_on(run_options: Options, tmp_path: Path) -> None:
    options = run_options(train={"total_iter": 60})
    whole, stopped = (write_run(tmp_path / name, options) for name in ("whole", "stopped"))
    finish_pair(whole)
    how: dict[str, Any] = {"arguments": ("--launcher", "slurm")}
    pair = start_pair(stopped, environment=SLURM, **how)
    wait_for(stopped, "8/60: ")
    for process in pair:  # as scancel, or --signal=TERM@120, does
        process.terminate()
    assert [exit_status(process) for process in pair] == [128 + signal.SIGTERM] * 2
    finish_pair(stopped, environment={**SLURM, "SLURM_RESTART_COUNT": "1"}, **how)
    assert starts(stopped) == [False, True]
    assert_same_end(stopped, whole, 60)


def test_what_another_job_left_is_not_gone_on_with(
    run_options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarted job may have died, the first time, before it began this very run."""
    options = run_options(
        distillers=[{"type": "Output"}], train={"total_iter": 4, "generations": 2}
    )
    file = write_options(tmp_path / "row.yml", options)
    root = tmp_path / "experiments"
    students = [root / name / f"{name}.safetensors" for name in ("tiny_generation1", "tiny")]

    def trained(job: str, restarts: str) -> list[bool]:
        """Train in a job; tell which of the two students are new files."""
        before = [student.stat().st_mtime_ns if student.exists() else 0 for student in students]
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        assert train(file) == 0
        return [s.stat().st_mtime_ns != time for s, time in zip(students, before, strict=True)]

    assert trained("7", "0") == [True, True]
    students[1].unlink()
    assert trained("7", "1") == [False, True]
    assert not list(root.glob("*_archived_*"))
    assert trained("8", "1") == [True, True]
    assert len(list(root.glob("*_archived_*"))) == 2


def test_jobs_of_torchrun_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.job() is None and not distributed.is_restart()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert distributed.job() == f"torchrun process {os.getppid()}"
    assert not distributed.is_restart()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert distributed.job() == "torchrun mine" and distributed.is_restart()
