"""Two commands for one run's folder: the second one is refused before it touches anything."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from filelock import FileLock
from helpers import (
    LONGEST,
    exit_status,
    output_of,
    run_folder,
    start_pair,
    start_training,
    wait_for,
    write_options,
    write_run,
)

from lsfd.cli import main
from lsfd.training import lock
from lsfd.training.folder import RunFolder
from lsfd.training.planned import plan_runs
from lsfd.training.records import read_records

Options = Callable[..., dict[str, Any]]
Held = Callable[[str], FileLock]
SHORT = {"total_iter": 4}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, no_curves: None) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """A function that holds the folder of a run in ``tmp_path`` as another process does."""
    locks = []

    def hold(name: str) -> FileLock:
        path = RunFolder(tmp_path / "experiments" / name).lock
        path.parent.mkdir(parents=True, exist_ok=True)
        locks.append(FileLock(path))
        locks[-1].acquire()
        path.write_text("process 4711 on elsewhere\n")
        return locks[-1]

    yield hold
    for each in locks:
        each.release()


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("arguments", [[], ["--auto_resume"], ["--set", "manual_seed=9"]])
def test_a_second_training_is_refused_and_touches_nothing(
    run_options: Options,
    tmp_path: Path,
    held: Held,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    file = write_run(tmp_path, run_options(train=SHORT))
    command = ["train", "-opt", str(file), *arguments]
    assert main(["train", "-opt", str(file)]) == 0
    holding = held("tiny")
    before = everything_in(tmp_path / "experiments")
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"{run_folder(file).root} is in use: process 4711 on elsewhere trains there" in said
    assert "stop it" in said and said.count("\n") == 1
    assert everything_in(tmp_path / "experiments") == before
    holding.release()
    assert main(command) == 0


@pytest.mark.parametrize("name", ["tiny_generation1", "tiny"])
def test_students_in_a_row_are_held_together(
    run_options: Options, tmp_path: Path, held: Held, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Otherwise a second command would archive the teacher of a generation that is trained."""
    train = {**SHORT, "generations": 2}
    file = write_run(tmp_path, run_options(distillers=[{"type": "Output"}], train=train))
    held(name)
    assert main(["train", "-opt", str(file)]) == 2
    assert f"{tmp_path / 'experiments' / name} is in use" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "experiments").iterdir() if path.is_dir()]


class Child:
    """Stands for the process that trains a run of a comparison; works in this one."""

    def __init__(self, command: list[str], *, stdout: BinaryIO, **_: object) -> None:
        self.stdin = None
        arguments = command[command.index("train") :]
        with contextlib.redirect_stderr(io.StringIO()) as words:
            self.returncode = main([word for word in arguments if word != "--end_with_input"])
        stdout.write(words.getvalue().encode())

    def poll(self) -> int:
        return self.returncode


def test_a_comparison_names_a_run_that_goes_on_without_its_parent(
    run_options: Options,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it may where the comparing process was killed: its lock is gone, the run is not."""
    monkeypatch.setattr(subprocess, "Popen", Child)
    options = run_options(name="side", train=SHORT)
    options["compare"] = {"seeds": [0], "methods": {"Plain": {"distillers": [{"type": "Plain"}]}}}
    file = write_options(tmp_path / "side.yml", options)
    (run,) = plan_runs(file)
    run.folder.lock.parent.mkdir(parents=True)
    with FileLock(run.folder.lock):
        assert main(["compare", "-opt", str(file)]) == 2
    assert f"{run.folder.root} is in use" in capsys.readouterr().err
    assert not run.folder.root.exists()


def test_a_second_compression_is_refused(
    run_options: Options, tmp_path: Path, held: Held, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"depths": [0], "widths": [0.5], "tail_widths": [0.5], "patches": 4, "held_out": 2}
    options = run_options(compress={**section, "iterations": 1}, distillers=[{"type": "Output"}])
    file = write_run(tmp_path, options)
    held("tiny/tiny_params_14000")
    assert main(["compress", "-opt", str(file), "--budget", "params=14k"]) == 2
    assert "tiny_params_14000 is in use" in capsys.readouterr().err
    assert not (tmp_path / "experiments" / "tiny" / "candidates").exists()


def test_two_processes_that_train_together_hold_it_once(
    run_options: Options, tmp_path: Path
) -> None:
    file = write_run(tmp_path, run_options(train={"total_iter": 400}))
    pair = start_pair(file, arguments=("--launcher", "pytorch"))
    wait_for(file, "4/400: ")
    second = start_training(file)
    assert exit_status(second) == 2
    said = output_of(file).read_text()
    assert f"is in use: process {pair[0].pid} on " in said
    for process in pair:
        process.terminate()
    assert [exit_status(process) for process in pair] == [128 + signal.SIGTERM] * 2
    assert len([r for r in read_records(run_folder(file).records) if r["kind"] == "run"]) == 1


def test_a_killed_run_blocks_nobody(run_options: Options, tmp_path: Path) -> None:
    """Not even while a loader's process lives that was forked with the lock in its hands."""
    options = run_options(train={"total_iter": 400})
    options["datasets"]["train"]["num_worker_per_gpu"] = 2
    file = write_run(tmp_path, options)
    process = start_training(file)
    wait_for(file, "8/400: ")
    path = run_folder(file).lock
    assert path.read_text() == f"process {process.pid} on {os.uname().nodename}\n"
    assert not _is_free(path)
    process.kill()
    process.join()
    end = time.monotonic() + min(LONGEST, 5.0)  # lock.PATIENCE, before the tests changed it
    while not _is_free(path):
        assert time.monotonic() < end, "the lock outlives the run"
        time.sleep(0.01)


def _is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def test_a_forked_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    """Of a loader that outlives its run, say; asked in a process without threads."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from lsfd.training.folder import RunFolder\n"
        "from lsfd.training.lock import held\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "with held(folder):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        time.sleep(60); os._exit(0)\n"
        "with held(folder):\n"
        "    os.kill(child, 9)\n"
        "    print('held again')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        capture_output=True, text=True, timeout=LONGEST,
    )  # fmt: skip
    assert done.stdout == "held again\n", done.stderr


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_there_is_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(logging.getLogger("lsfd"), "propagate", True)
    with lock.held(RunFolder(tmp_path / "run")):
        pass
    assert "its file system has no locks" in caplog.text
    with lock.held(RunFolder(tmp_path / "run")):  # Nothing was left that keeps anybody out.
        pass
