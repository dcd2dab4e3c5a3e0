"""What a step costs is measured in a process of its own, here by a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_options

from lsfd.config.load import options_from_dict
from lsfd.errors import LsfdError
from lsfd.training import timing
from lsfd.training.model import LSFDModel
from lsfd.training.phases import Phase
from lsfd.training.timing import StepCost, step_cost


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program in the place of Python."""

    def put(program: str) -> None:
        file = tmp_path / "python"
        file.write_text(f"#!{sys.executable}\n{program}")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return put


def test_the_input_stays_open_while_somebody_waits(stand_in: Callable[[str], None]) -> None:
    """Otherwise the measurement, which ends with its input, would end at once."""
    stand_in(
        "import select, sys\n"
        "ended = select.select([sys.stdin], [], [], 0.3)[0]\n"
        """print('a line of a library\\n{"seconds": 0.5, "memory": %d}' % bool(ended))"""
    )
    assert step_cost(Path("options.yml")) == StepCost(0.5, 0)


def test_what_a_failed_measurement_says_is_told(stand_in: Callable[[str], None]) -> None:
    stand_in("import sys; sys.exit('the teacher is too large')")
    with pytest.raises(LsfdError, match=r"^options.yml: a step cannot be timed: the teacher is to"):
        step_cost(Path("options.yml"))


def test_a_system_that_does_not_tell_memory_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # As on Windows.
    assert timing._peak_memory(torch.device("cpu")) is None
    assert timing.most_memory([StepCost(1, None), StepCost(1, None)]) is None
    assert timing.most_memory([StepCost(1, 5), StepCost(1, 7)]) == 7


def test_a_run_is_divided_where_something_begins_or_ends(run_options: Callable[..., Any]) -> None:
    windows = [
        {"type": "LSFD", "end": 7},
        {"type": "Output", "start": 8},
        {"type": "AT", "end": 99},
    ]
    options = options_from_dict(run_options(distillers=windows)).options
    stages = [Phase(1, 2), Phase(3, 12)]
    assert timing.parts(options, stages) == [range(1, 3), range(3, 8), range(8, 13)]
    alone = options_from_dict(run_options(distillers=[{"type": "LSFD"}])).options
    assert timing.parts(alone, [Phase(1, 12)]) == [range(1, 13)]


def test_each_part_counts_as_long_as_it_lasts(
    run_options: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second with a teacher, and none without."""
    clock = 0

    def step(self: LSFDModel, current_iter: int) -> None:
        nonlocal clock
        clock += current_iter <= 3

    monkeypatch.setattr(LSFDModel, "optimize_parameters", step)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock)
    file = write_options(tmp_path / "o.yml", run_options(distillers=[{"type": "LSFD", "end": 3}]))
    assert timing.measure(file).seconds == 3 / 12


def test_students_in_a_row_are_all_measured(
    run_options: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 12 seconds with the fixed teacher, 4 with a student as one."""
    clock = 0

    def step(self: LSFDModel, current_iter: int) -> None:
        nonlocal clock
        (teacher,) = self.options.network_t
        clock += 4 if teacher == self.options.network_g else 12

    monkeypatch.setattr(LSFDModel, "optimize_parameters", step)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock)
    options = run_options(distillers=[{"type": "Output"}], train={"generations": 3})
    file = write_options(tmp_path / "o.yml", options)
    assert timing.measure(file).seconds == pytest.approx((12 + 4 + 4) / 3)
