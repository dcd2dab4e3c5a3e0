"""SIGINT and SIGTERM end a run with a checkpoint, from which it goes on as if undisturbed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    assert_same,
    exit_status,
    finish,
    lasting_records,
    output_of,
    run_folder,
    start_training,
    wait_for,
    wait_for_end_of,
    write_run,
)

from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import Processes
from lsfd.training.folder import RunFolder
from lsfd.training.signals import StopSignals

ITERATIONS = 60


@pytest.fixture
def option_file(run_options: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    options = run_options(
        train={"total_iter": ITERATIONS},
        val={"val_freq": ITERATIONS},
        logger={"print_freq": 4, "save_checkpoint_freq": 25},
    )
    options["datasets"]["train"]["num_worker_per_gpu"] = 2
    return write_run(tmp_path, options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_stops_cleanly(
    option_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start_training(option_file)
    wait_for(option_file, f"8/{ITERATIONS}: ")
    assert process.pid is not None
    os.killpg(process.pid, number)  # as a terminal or Slurm does
    status = exit_status(process)
    printed = output_of(option_file).read_text()
    assert status == 128 + number, printed
    wait_for_end_of({process.pid})  # The loader's processes are gone as well.

    folder = run_folder(option_file)
    done = int(checkpoints(folder.states)[0].stem)
    assert 8 <= done < ITERATIONS
    assert printed.splitlines()[-1] == (
        f"stopped at iteration {done} of {ITERATIONS}; the checkpoint is saved: go on with "
        "--auto_resume"
    )
    assert "Traceback" not in printed
    assert not folder.student.exists()

    finish(option_file)
    stopped = folder.root.rename(tmp_path / "stopped")
    finish(option_file)
    stopped_folder = RunFolder(stopped)
    assert (stopped / folder.student.name).read_bytes() == folder.student.read_bytes()
    assert_same(
        load_checkpoint(stopped_folder.states / f"{ITERATIONS}.state"),
        load_checkpoint(folder.states / f"{ITERATIONS}.state"),
    )
    assert lasting_records(stopped_folder) == lasting_records(folder)


def test_only_a_second_interrupt_is_impatient() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(Processes(), torch.device("cpu")) as signals:
        assert signals.received() == 0
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
