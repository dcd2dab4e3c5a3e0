"""Killed at any moment and given again, every command ends as one that nobody killed.

A short form of ``scripts/soak/kills.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOAK = Path(__file__).parent.parent / "scripts" / "soak"
VERBS = 6


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if sys.platform != "linux":
        pytest.skip("processes are looked up in /proc")
    monkeypatch.syspath_prepend(str(SOAK))
    import kills

    yield kills
    for name in ("kills", "scenes", "warm", "evidence"):
        sys.modules.pop(name, None)


def test_every_command_survives_kills(
    kills: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "KILLS_IN_A_LIFE", 2)
    outcome = kills.kill_all(tmp_path, 2 * VERBS - 1, seed=0)
    assert not outcome.failures
    assert outcome.landed == 2 * VERBS - 1
    assert outcome.lives >= VERBS  # They were killed in turn.
