"""Worker processes end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from helpers import SERVER, wait_for_end_of

from lsfd.data.workers import end_with_parent


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
