"""The job files in ``scripts``, run with stand-ins for the launchers, which note their arguments.

That Slurm itself takes them cannot be tested without one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from lsfd import cli

SCRIPTS = Path(__file__).parent.parent / "scripts"
JOB_FILES = sorted([*SCRIPTS.glob("*.sbatch"), *SCRIPTS.glob("*.sh")])


class Launchers:
    """A folder of commands that only note their arguments, one a line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, status: int = 0) -> None:
        command = self.folder / name
        command.write_text(
            f'#!/bin/bash\nprintf "%s\\n" "$@" > "{self.folder}/{name}.called"\nexit {status}\n'
        )
        command.chmod(0o755)

    def arguments(self, name: str) -> list[str] | None:
        called = self.folder / f"{name}.called"
        return called.read_text().splitlines() if called.exists() else None

    def run(self, file: str, *arguments: str, **variables: str) -> int:
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", str(SCRIPTS / file), *arguments]
        return subprocess.run(command, env={"PATH": path, **variables}).returncode


@pytest.fixture
def launchers(tmp_path: Path) -> Launchers:
    return Launchers(tmp_path)


def training(arguments: list[str]) -> argparse.Namespace:
    """What ``lsfd`` makes of these arguments."""
    return cli._parser().parse_args(arguments)


@pytest.mark.parametrize("file", JOB_FILES, ids=lambda file: file.name)
def test_bash_can_read_it(file: Path) -> None:
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize(("status", "requeued"), [(0, None), (2, None), (143, ["requeue", "12"])])
def test_slurm_trains_and_requeues_what_was_told_to_leave(
    launchers: Launchers, status: int, requeued: list[str] | None
) -> None:
    launchers.add("srun", status)
    launchers.add("scontrol")
    given = ("run.yml", "--set", "train.lr_scaling=sqrt", "scale=4")
    ended = launchers.run("slurm_train.sbatch", *given, SLURM_JOB_ID="12")
    assert ended == (0 if requeued else status)
    assert launchers.arguments("scontrol") == requeued
    called = launchers.arguments("srun")
    assert called is not None and called[:2] == ["--kill-on-bad-exit=1", "lsfd"]
    run = training(called[2:])
    assert (run.opt, run.launcher, run.auto_resume) == (Path("run.yml"), "slurm", True)
    assert run.overrides == ["train.lr_scaling=sqrt", "scale=4"]


def test_slurm_is_told_to_warn_and_to_requeue() -> None:
    text = (SCRIPTS / "slurm_train.sbatch").read_text()
    asked = {line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("#SBATCH")}
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= asked


def test_torchrun_meets_at_the_first_host_and_restarts(launchers: Launchers) -> None:
    launchers.add("torchrun")
    given = ("options/run.yml", "--set", "num_gpu=0")
    assert launchers.run("torchrun_train.sh", *given, HOSTS="2", FIRST="host1", PROCESSES="3") == 0
    called = get_args_parser().parse_args(launchers.arguments("torchrun"))
    assert (called.nnodes, called.nproc_per_node, called.max_restarts) == ("2", "3", 3)
    assert (called.rdzv_backend, called.rdzv_endpoint, called.rdzv_id) == (
        "c10d",
        "host1:29400",
        "run",
    )
    assert called.module and called.training_script == "lsfd"
    run = training(called.training_script_args)
    assert (run.opt, run.launcher, run.auto_resume) == (Path("options/run.yml"), "pytorch", True)
    assert run.overrides == ["num_gpu=0"]


@pytest.mark.parametrize("file", ["slurm_train.sbatch", "torchrun_train.sh"])
def test_without_an_option_file_it_says_how_it_is_called(
    launchers: Launchers, file: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launchers.run(file, SLURM_JOB_ID="12") == 2
    assert "OPTIONS.yml" in capfd.readouterr().err
