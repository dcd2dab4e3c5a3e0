"""A run that is killed at any moment and resumed ends as one that was never stopped."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    assert_same,
    exit_status,
    finish,
    lasting_records,
    output_of,
    run_folder,
    start_training,
    wait_for_end_of,
    write_run,
)

from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.folder import RunFolder

KILLS = 20
KILLS_IN_A_RUN = 7

Options = Callable[..., dict[str, Any]]
WriteOptions = Callable[[str, int, int], Path]


@pytest.fixture
def option_file(run_options: Options, tmp_path: Path) -> WriteOptions:
    """A function that writes the option file of one more run, with all that has a state."""

    def write(name: str, iterations: int, workers: int) -> Path:
        options = run_options(
            train={
                "total_iter": iterations,
                "warmup_iter": 8,
                "scheduler": {"type": "CosineAnnealingLR", "eta_min": 1e-6},
            },
            val={"val_freq": 7},
            logger={"print_freq": 2, "save_checkpoint_freq": 3, "keep_checkpoints": 1},
        )
        options["datasets"]["train"]["num_worker_per_gpu"] = workers
        options["datasets"]["train"]["cache_dir"] = str(tmp_path / name / "cache")
        return write_run(tmp_path / name, options)

    return write


def assert_same_run(run: RunFolder, reference: RunFolder) -> None:
    files = [path.relative_to(run.root) for path in sorted(run.root.rglob("*"))]
    assert not [path for path in files if path.suffix == ".tmp"]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert [path.name for path in weights] == [
        "net_g_best.safetensors",
        "net_g_latest.safetensors",
        "tiny.safetensors",
    ]
    for path in weights:
        assert (run.root / path).read_bytes() == (reference.root / path).read_bytes()
    states = [path.name for path in checkpoints(run.states)]
    assert states == [path.name for path in checkpoints(reference.states)]
    for name in states:
        assert_same(load_checkpoint(run.states / name), load_checkpoint(reference.states / name))
    assert lasting_records(run) == lasting_records(reference)
    assert run.curves.exists()


def kill_until_enough(
    kill: Callable[[Path], bool], reference: Path, option_file: WriteOptions, iterations: int
) -> None:
    """Kill runs, each several times, finish them, and compare; until enough kills landed.

    Args:
        kill: runs the training of an option file; returns whether it was killed before its end.
        reference: the option file of a run that was never stopped.
        option_file: writes the option file of one more run.
        iterations: of each run.
    """
    landed = rounds = 0
    while landed < KILLS:
        rounds += 1
        assert rounds <= KILLS, "most runs finish before they are killed"
        file = option_file(f"round{rounds}", iterations, rounds % 2)
        for _ in range(KILLS_IN_A_RUN):
            if not kill(file):
                break
            landed += 1
        finish(file)
        assert_same_run(run_folder(file), run_folder(reference))


def test_killed_at_random_times(option_file: WriteOptions) -> None:
    chance = random.Random(20)
    finish(option_file("warm", 24, 0))  # It waited until everything was imported.
    reference = option_file("reference", 24, 1)
    started = time.perf_counter()
    finish(reference)
    seconds = time.perf_counter() - started
    reached: set[str] = set()
    groups: set[int] = set()

    def kill(file: Path) -> bool:
        delay = chance.uniform(0, 0.6 * seconds)
        process = start_training(file)
        assert process.pid is not None
        groups.add(process.pid)
        process.join(delay)
        assert process.exitcode in (None, 0), output_of(file).read_text()
        landed = process.exitcode is None
        process.kill()
        process.join()
        states = [path.name for path in checkpoints(run_folder(file).states)]
        reached.update(states)
        print(f"{file.parent.name}: {delay:.3f} s, killed {landed}, checkpoints {states}")
        return landed

    kill_until_enough(kill, reference, option_file, 24)
    assert len(reached) > 3, "the kills are not spread over the run"
    wait_for_end_of(groups)


def test_killed_at_random_file_changes(option_file: WriteOptions) -> None:
    chance = random.Random(21)
    reference = option_file("reference", 6, 0)
    finish(reference)

    def kill(file: Path) -> bool:
        number = chance.randint(1, 30)
        status = exit_status(start_training(file, kill_at=number))
        print(f"{file.parent.name}: change {number}, exit status {status}")
        assert status in (0, -signal.SIGKILL), output_of(file).read_text()
        return status != 0

    kill_until_enough(kill, reference, option_file, 6)
