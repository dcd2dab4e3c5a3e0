"""Worker processes end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SERVER, wait_for_end_of

from lsfd.config.load import options_from_dict
from lsfd.data.workers import end_with_parent
from lsfd.errors import LsfdError
from lsfd.training import jobs
from lsfd.training.distributed import Processes
from lsfd.training.run import Run


def work() -> None:
    end_with_parent()
    time.sleep(600)


def start_workers_and_die() -> None:
    os.setsid()
    for _ in range(3):
        multiprocessing.get_context("fork").Process(target=work).start()
    os.kill(os.getpid(), signal.SIGKILL)  # at once: the workers have hardly begun


def test_workers_end_with_a_parent_that_is_killed() -> None:
    parent = SERVER.Process(target=start_workers_and_die)
    parent.start()
    assert parent.pid is not None
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    wait_for_end_of({parent.pid})


def launch_and_die() -> None:
    os.setsid()
    program = """
import time
from lsfd.data.workers import end_with_launcher
end_with_launcher()
print("ready", flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", program]
    launched = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for process in launched:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(os.getpid(), signal.SIGKILL)


def test_trainings_end_with_a_launcher_that_is_killed() -> None:
    launcher = SERVER.Process(target=launch_and_die)
    launcher.start()
    assert launcher.pid is not None
    launcher.join()
    assert launcher.exitcode == -signal.SIGKILL
    wait_for_end_of({launcher.pid})


def start_a_comparison_and_die(folder: Path) -> None:
    """Start a run as a comparison does; a stand-in for the training sleeps."""
    os.setsid()
    interpreter = folder / "python"
    interpreter.write_text(f"""#!{sys.executable}
import os, sys, time, types
def train(*_, **__):
    open({str(folder / "ready")!r}, "w").write(str(os.getpid()))
    time.sleep(600)
sys.modules["lsfd.training.run"] = types.SimpleNamespace(train=train)
from lsfd.cli import main
sys.exit(main(sys.argv[3:]))
""")
    interpreter.chmod(0o755)
    jobs.sys = SimpleNamespace(executable=str(interpreter))  # type: ignore[assignment]
    run = SimpleNamespace(
        lock=folder / ".lock", output=folder / "log", option_file=folder / "options.yml",
        is_finished=lambda: False,
    )  # fmt: skip
    started = jobs._start(run, 1)  # type: ignore[arg-type]
    assert started is not None
    while not (folder / "ready").exists() and started.process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    assert started.process.poll() is None  # It lives as long as the comparison.
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_runs_of_a_comparison_end_with_it(tmp_path: Path) -> None:
    comparison = SERVER.Process(target=start_a_comparison_and_die, args=(tmp_path,))
    comparison.start()
    comparison.join()
    assert comparison.exitcode == -signal.SIGKILL
    (session,) = [int((tmp_path / "ready").read_text())]
    try:
        wait_for_end_of({session}, longest=10)
    finally:
        with suppress(ProcessLookupError):
            os.kill(session, signal.SIGKILL)


def test_a_temporary_folder_of_a_long_name_is_refused(
    run_options: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = run_options()
    options["datasets"]["train"]["num_worker_per_gpu"] = 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 80)))
    with pytest.raises(LsfdError, match=r"num_worker_per_gpu: .* set TMPDIR"):
        Run(options_from_dict(options), Processes())
