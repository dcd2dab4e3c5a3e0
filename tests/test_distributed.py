"""Two processes on the CPU train as one would with twice the batch."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    LONGEST,
    assert_same,
    exit_status,
    finish,
    lasting_records,
    output_of,
    start_training,
    wait_for,
    write_options,
)

from lsfd.errors import LsfdError
from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import start
from lsfd.training.folder import RunFolder
from lsfd.training.records import read_records

TRAIN = Path(__file__).parent.parent / "lsfd" / "train.py"
WriteOptions = Callable[..., Path]


@pytest.fixture
def option_file(run_options: Callable[..., dict[str, Any]], tmp_path: Path) -> WriteOptions:
    """A function that writes the option file of one more run."""

    def write(name: str, *, batch_size: int, iterations: int) -> Path:
        folder = tmp_path / name
        options = run_options(
            path={"experiments_root": str(folder / "experiments")},
            train={"total_iter": iterations},
        )
        options["datasets"]["train"]["batch_size_per_gpu"] = batch_size
        return write_options(folder / "options.yml", options)

    return write


def run_folder(option_file: Path) -> RunFolder:
    return RunFolder(option_file.parent / "experiments" / "tiny")


@contextmanager
def torchrun(option_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [str(TRAIN), "-opt", str(option_file), "--launcher", "pytorch"]
    with (
        output_of(option_file).open("ab") as output,
        subprocess.Popen(
            [*launcher, *arguments], cwd=option_file.parent, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()  # if the test failed before its end


def finish_pair(option_file: Path) -> None:
    """Run, or go on with, a training of two processes, started as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    pair = [
        start_training(
            option_file,
            environment={**address, "RANK": str(rank), "WORLD_SIZE": "2"},
            arguments=("--auto_resume", "--launcher", "pytorch"),
            kill_at=rank,  # The second one must leave the run's folder alone.
        )
        for rank in range(2)
    ]
    statuses = [exit_status(process) for process in pair]
    assert statuses == [0, 0], output_of(option_file).read_text()


def assert_same_losses(option_file: Path, reference: Path, rel: float) -> None:
    """Compare the records of two runs."""
    records, expected = (lasting_records(run_folder(file)) for file in (option_file, reference))
    assert [(r["kind"], r["iteration"]) for r in records] == [
        (r["kind"], r["iteration"]) for r in expected
    ]
    for record, other in zip(records, expected, strict=True):
        if record["kind"] == "train":
            assert record["losses"] == pytest.approx(other["losses"], rel=rel)


def test_two_processes_equal_one_with_twice_the_batch(option_file: WriteOptions) -> None:
    one = option_file("one", batch_size=4, iterations=12)
    finish(one)
    two = option_file("two", batch_size=2, iterations=12)
    with torchrun(two) as process:
        assert process.wait(LONGEST) == 0, output_of(two).read_text()
    states = [load_checkpoint(run_folder(file).states / "12.state") for file in (one, two)]
    for part in ("student", "average", "distillers"):
        expected, found = (state["model"][part] for state in states)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    records = read_records(run_folder(two).records)
    assert [record["processes"] for record in records if record["kind"] == "run"] == [2]
    assert_same_losses(two, one, rel=1e-3)


def test_a_signal_to_torchrun_leaves_a_checkpoint_to_resume(option_file: WriteOptions) -> None:
    whole = option_file("whole", batch_size=2, iterations=60)
    finish_pair(whole)
    stopped = option_file("stopped", batch_size=2, iterations=60)
    with torchrun(stopped) as process:
        wait_for(stopped, "8/60: ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONGEST) != 0
    newest = checkpoints(run_folder(stopped).states)[0]
    assert f"stopped at iteration {newest.stem} of 60" in output_of(stopped).read_text()
    assert not run_folder(stopped).student.exists()
    finish_pair(stopped)
    assert_same(
        load_checkpoint(run_folder(stopped).states / "60.state"),
        load_checkpoint(run_folder(whole).states / "60.state"),
    )
    assert_same_losses(stopped, whole, rel=1e-6)


@pytest.mark.parametrize(
    ("launcher", "sentence"),
    [
        ("pytorch", "RANK, WORLD_SIZE, MASTER_ADDR is not in the environment; start with torchrun"),
        ("slurm", "SLURM_PROCID is not set; start with srun"),
    ],
)
def test_a_launcher_that_did_not_start_us_is_named(
    monkeypatch: pytest.MonkeyPatch, launcher: Any, sentence: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LsfdError, match=sentence):
        start(launcher, use_cuda=False, port=29500)
