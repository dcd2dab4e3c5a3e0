"""What a step costs is measured in a process of its own, here by a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lsfd.errors import LsfdError
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
