"""Two processes on the CPU train as one would with twice the batch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import sections_of
from helpers import (
    LONGEST,
    assert_same,
    finish,
    finish_pair,
    in_group,
    lasting_records,
    output_of,
    run_folder,
    torchrun,
    wait_for,
    write_run,
)

from lsfd.config.load import load_options, options_from_dict
from lsfd.data.store import Store
from lsfd.distillers import DISTILLERS
from lsfd.errors import LsfdError
from lsfd.networks.student_file import read_student
from lsfd.training import samples
from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import Processes, start
from lsfd.training.records import read_records
from lsfd.training.run import Run
from lsfd.training.samples import training_store
from lsfd.training.validation import validate, validation_sets

WriteOptions = Callable[..., Path]


@pytest.fixture
def option_file(run_options: Callable[..., dict[str, Any]], tmp_path: Path) -> WriteOptions:
    """A function that writes the option file of one more run."""

    def write(name: str, *, batch_size: int, iterations: int) -> Path:
        options = run_options(train={"total_iter": iterations})
        options["datasets"]["train"]["batch_size_per_gpu"] = batch_size
        return write_run(tmp_path / name, options)

    return write


def assert_same_losses(option_file: Path, reference: Path, rel: float) -> None:
    """Compare the records of two runs."""
    records, expected = (lasting_records(run_folder(file)) for file in (option_file, reference))
    assert [(r["kind"], r["iteration"]) for r in records] == [
        (r["kind"], r["iteration"]) for r in expected
    ]
    for record, other in zip(records, expected, strict=True):
        if record["kind"] == "train":
            assert record["losses"] == pytest.approx(other["losses"], rel=rel)


def losses_told(processes: Processes, runs: list[dict[str, Any]]) -> list[Any]:
    """What some runs say of their losses."""
    told = []
    for options in runs:
        run = Run(options_from_dict(options), processes)
        assert run.go(auto_resume=False) == 0
        told.append([r["losses"] for r in lasting_records(run.folder) if r["kind"] == "train"])
    return told


def test_saving_changes_nothing_that_is_told(run_options: Callable[..., dict[str, Any]]) -> None:
    """Neither at its usual times nor when a signal stops the run in between."""
    runs = [
        run_options(
            name=f"every{often}",
            logger={"print_freq": 12, "save_checkpoint_freq": often},
            val={"val_freq": 12},
        )
        for often in (1, 5, 12)
    ]
    (first, *others), _ = in_group(2, losses_told, runs)
    assert first and others == [first, first]


def test_two_processes_equal_one_with_twice_the_batch(option_file: WriteOptions) -> None:
    one = option_file("one", batch_size=4, iterations=12)
    finish(one)
    two = option_file("two", batch_size=2, iterations=12)
    with torchrun(two) as process:
        assert process.wait(LONGEST) == 0, output_of(two).read_text()
    states = [load_checkpoint(run_folder(file).states / "12.state") for file in (one, two)]
    for part in ("student", "averages", "distillers"):
        expected, found = (state["model"][part] for state in states)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    records = read_records(run_folder(two).records)
    assert [r["processes"] for r in records if r["kind"] == "run"] == [2]
    assert "batch 4 (2 a process x 2 processes)" in output_of(two).read_text()
    # The processes shared the images of the validation: one alone finds the same, to the bit.
    loaded = load_options(two)
    student, card = read_student(run_folder(two).student)
    assert card.scores == validate(student, validation_sets(loaded), loaded).scores
    assert_same_losses(two, one, rel=1e-3)


def test_every_method_trains_in_two_processes(
    run_options: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Both see other images and agree on every weight after each kind of step."""
    runs = {
        method: run_options(name=method, train={"total_iter": 20}, **sections_of(method, 2))
        for method in sorted(DISTILLERS)
    }
    asked, answered = tmp_path / "runs.json", tmp_path / "differences.json"
    asked.write_text(json.dumps(runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = Path(__file__).with_name("train_in_pair.py")
    done = subprocess.run(
        [*command, str(script), str(asked), str(answered)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(answered.read_text())
    assert differences == dict.fromkeys(runs, 0.0)


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
        start(launcher, use_cuda=False, backend="nccl", port=29500)


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The second process on a machine with two GPUs; the list takes the backends asked for."""
    backends: list[str] = []
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "what start() sets is taken back after the test")
    monkeypatch.delenv("MASTER_PORT")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda number: None)
    monkeypatch.setattr(
        "torch.distributed.init_process_group", lambda backend, **_: backends.append(backend)
    )
    monkeypatch.setattr("torch.distributed.new_group", lambda **_: None)
    return backends


def test_nccl_is_for_gpus_only(second_of_two: list[str]) -> None:
    for use_cuda, backend in ((True, "nccl"), (True, "gloo"), (False, "nccl"), (False, "gloo")):
        processes = start("pytorch", use_cuda, backend, port=29511)
        assert processes == Processes(rank=1, world_size=2, local_rank=1)
    assert second_of_two == ["nccl", "gloo", "gloo", "gloo"]
    assert os.environ["MASTER_PORT"] == "29511"


def test_more_processes_than_gpus_are_refused(
    second_of_two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(LsfdError, match="process 2 of this machine has no GPU, PyTorch sees 1"):
        start("pytorch", use_cuda=True, backend="nccl", port=29511)
    assert not second_of_two


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in {**address, "RANK": "0", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        place = rf"127\.0\.0\.1:{address['MASTER_PORT']}"
        with pytest.raises(LsfdError, match=f"process 0 of 2 does not reach the others at {place}"):
            start("pytorch", use_cuda=False, backend="gloo", port=29500)


def packed(processes: Processes, options: dict[str, Any], first_sees: str | None) -> str:
    """The fingerprint of the store that a process trains on."""
    if first_sees is not None and processes.is_first:
        options["datasets"]["train"]["dataroot_gt"] = [first_sees]
    return training_store(options_from_dict(options), processes).fingerprint


def test_the_first_process_packs_and_the_others_need_no_images(
    run_options: Callable[..., dict[str, Any]], photographs: Path, tmp_path: Path
) -> None:
    options = run_options()
    options["datasets"]["train"] |= {"dataroot_gt": "elsewhere", "cache_dir": str(tmp_path)}
    one, other = in_group(2, packed, options, str(photographs))
    assert one == other and len(one) == 64


def test_a_failure_to_pack_ends_all(
    run_options: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    options = run_options()
    options["datasets"]["train"] |= {"cache_dir": str(tmp_path / "cache")}
    said = in_group(2, packed, options, str(tmp_path))
    assert said[0] == said[1]
    assert said[0].startswith("process 0 on ") and "damaged.png is not an image" in said[0]


def packed_elsewhere(processes: Processes, options: dict[str, Any]) -> str:
    """The same, where the second process's host has other images in the store's folder."""
    open_here = samples.open_store

    def open_there(folder: Path) -> Store:
        store = open_here(folder)
        return Store(folder, replace(store.index, fingerprint="0" * 64))

    if not processes.is_first:
        samples.open_store = open_there  # type: ignore[assignment]
    return packed(processes, options, None)


def test_a_host_with_another_store_is_named(
    run_options: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    options = run_options()
    options["datasets"]["train"]["cache_dir"] = str(tmp_path)
    said = in_group(2, packed_elsewhere, options)
    assert said[0] == said[1] and said[0].startswith("process 1 on ")
    assert "holds other images (fingerprint " in said[0] and str(tmp_path) in said[0]
