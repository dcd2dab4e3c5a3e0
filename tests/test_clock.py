"""A clock that is set back or forward by years, before and during a run, changes no result."""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import pytest
from helpers import assert_same, lasting_records, train_here

from lsfd.config.load import options_from_dict
from lsfd.training.bar import Bar
from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import Processes
from lsfd.training.records import read_records
from lsfd.training.run import Run

pytestmark = pytest.mark.usefixtures("no_curves")

Options = Callable[..., dict[str, Any]]
YEAR = 365 * 24 * 3600.0
JUMPS = (0.0, -20 * YEAR, 30 * YEAR, -5.0, 1 * YEAR)


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock says another year whenever it is asked."""
    true, localtime, strftime = time.time, time.localtime, time.strftime
    jumps = itertools.cycle(JUMPS)

    def jumped() -> float:
        return true() + next(jumps)

    monkeypatch.setattr(time, "time", jumped)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumped() * 1e9))
    monkeypatch.setattr(time, "localtime", lambda t=None: localtime(jumped() if t is None else t))
    monkeypatch.setattr(
        time,
        "strftime",
        lambda form, t=None: strftime(form, localtime(jumped()) if t is None else t),
    )
    monkeypatch.setattr("tqdm.std.time", jumped)


def test_a_run_under_a_jumping_clock_is_the_same(
    run_options: Options, request: pytest.FixtureRequest
) -> None:
    steady = train_here(run_options(name="steady"))
    request.getfixturevalue("jumping")
    options = run_options()
    first = train_here(options)
    final = first.folder.root / "training_states" / "12.state"
    assert_same(load_checkpoint(final), load_checkpoint(steady.folder.states / "12.state"))
    assert lasting_records(first.folder) == lasting_records(steady.folder)
    took = [r["seconds_per_iteration"] for r in read_records(first.folder.records) if "lr" in r]
    assert len(took) == 3 and all(0 < seconds < 60 for seconds in took)
    contents = [first.folder.student.read_bytes()]
    for seed in (8, 9, 10):  # Each puts the one before aside, whatever the year.
        again = train_here({**options, "manual_seed": seed})
        contents.append(again.folder.student.read_bytes())
    archives = list(first.folder.root.parent.glob("tiny_archived_*"))
    kept = {(archive / "tiny.safetensors").read_bytes() for archive in archives}
    assert kept == set(contents[:-1])


def test_the_newest_checkpoint_is_the_one_that_went_furthest(run_options: Options) -> None:
    run = train_here(run_options())
    older = run.folder.states / "10.state"
    os.utime(older, (time.time() + YEAR, time.time() + YEAR))
    assert checkpoints(run.folder.states)[0].name == "12.state"


def test_a_store_from_the_future_is_used(run_options: Options, tmp_path: Path) -> None:
    options = run_options()
    options["datasets"]["train"]["cache_dir"] = str(tmp_path / "cache")
    store = Run(options_from_dict(options), Processes()).dataset._store
    for path in (store.folder, *store.folder.iterdir()):
        os.utime(path, (time.time() + 9 * YEAR,) * 2)
    before = {path: path.stat().st_ino for path in store.folder.iterdir()}
    Run(options_from_dict(options), Processes())
    assert {path: path.stat().st_ino for path in store.folder.iterdir()} == before


def test_a_bar_goes_on_when_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    now = time.time()
    clock = {"now": now}
    monkeypatch.setattr(time, "time", lambda: clock["now"])
    monkeypatch.setattr("tqdm.std.time", lambda: clock["now"])
    bar = Bar(total=100, file=shown, mininterval=0, miniters=1, ascii=True)
    for number, year in enumerate([0, -10, 20, -30] * 5, start=1):
        clock["now"] = now + year * YEAR
        time.sleep(0.001)
        bar.update()
        assert f"{number}/100" in shown.getvalue()
        elapsed = bar.format_dict["elapsed"]
        assert 0 <= elapsed < 60
    bar.close()
