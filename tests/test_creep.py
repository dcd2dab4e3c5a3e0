"""Long work does not creep, in short; and what watches for it in the long form sees creeping."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from conftest import STUDENT
from matplotlib.figure import Figure

from lsfd.config.load import options_from_dict
from lsfd.imaging.files import write_image
from lsfd.inference.student import load_student
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student
from lsfd.reporting.curves import save_run_curves
from lsfd.training.distributed import Processes
from lsfd.training.run import Run

SOAK = Path(__file__).parent.parent / "scripts" / "soak"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def holdings() -> dict[str, int]:
    """Return what this process holds: open files, threads, tensors, children."""
    gc.collect()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tensors": sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()),
        "children": len(children.split()),
    }


def test_a_training_holds_at_the_end_what_it_held_early(
    run_options: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = run_options(
        train={"total_iter": 40},
        val={"val_freq": 4, "save_img": True},
        logger={"print_freq": 2, "save_checkpoint_freq": 4, "use_tb_logger": True},
    )
    run = Run(options_from_dict(options), Processes())
    seen = []
    save = run._save

    def saved(*arguments: Any) -> None:
        save(*arguments)
        seen.append(holdings())

    monkeypatch.setattr(run, "_save", saved)
    run.go(auto_resume=False)
    assert len(seen) == 10
    assert seen[-1] == seen[2]


def test_pictures_of_a_training_do_not_pile_up(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()  # A full collection hardly ever comes of itself in a training.
    try:
        before = figures()
        for _ in range(3):
            save_run_curves([], tmp_path / "curves.png", "run")
        assert figures() <= before + 1
    finally:
        gc.enable()


def figures() -> int:
    """Return how many pictures are held."""
    return sum(type(each) is Figure for each in gc.get_objects())


def test_upscaling_holds_after_many_images_what_it_held_after_one(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_student(path, build_network(STUDENT), StudentCard(architecture=STUDENT, scale=2))
    upscale = load_student(path, device="cpu", engine="torch")
    generator = np.random.default_rng(0)
    seen = []
    for number in range(12):
        side = 8 + number % 3
        image = generator.integers(0, 256, (side, side, 3), np.uint8)
        write_image(tmp_path / "out.png", upscale(image))
        seen.append(holdings())
    assert seen[-1] == seen[2]


@pytest.fixture
def creep(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of the long form."""
    monkeypatch.syspath_prepend(str(SOAK))
    return import_module("creep")


WORK = """
import sys, time
held = []
for step in range(1, 41):
    for _ in range(int(sys.argv[1])):
        held.append(open("/dev/null"))
        held.append(bytearray(1_000_000))
        time.sleep(0.0005)
    print(step, file=open(sys.argv[2], "w"), flush=True)
    time.sleep(0.02)
"""


@pytest.mark.parametrize("leaks", [0, 2])
def test_the_watch_sees_what_grows(creep: ModuleType, tmp_path: Path, leaks: int) -> None:
    count = tmp_path / "count"

    def done() -> int:
        return int(count.read_text() or 0) if count.exists() else 0

    command = [sys.executable, "-c", WORK, str(leaks), str(count)]
    found = creep.growth(creep.watched(command, done, 0.02, 0))
    assert found["threads"] == 1
    if leaks:
        assert found["files"] > 1.3 and found["own"] > 1.3
    else:
        assert found["files"] == 1 and found["own"] == pytest.approx(1, abs=0.05)


def test_the_watch_tells_of_a_command_that_fails(creep: ModuleType) -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        creep.watched([sys.executable, "-c", "exit(3)", "work"], int, 0.01, 0)
