"""What a comparison leaves in a folder, and that tables and pictures are made of it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import keep_invented_comparison
from hypothesis import given
from hypothesis import strategies as st

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.reporting import effort
from lsfd.reporting.comparison import MethodResult
from lsfd.reporting.effort import relative_loss
from lsfd.reporting.labels import apart
from lsfd.reporting.series import settled_range
from lsfd.training.compared import draw_comparison, read_comparison


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return keep_invented_comparison(tmp_path)


def test_tables_and_pictures_are_made_of_the_folder_alone(folder: Path) -> None:
    table = draw_comparison(folder)
    assert (folder / "compare.md").read_text() == table
    header, _, plain, long, mine = table.splitlines()[:5]
    assert "gain (Set14)" in header and "minutes" in header
    assert "30.500 ± 0.707 / 0.8500" in plain
    assert "+0.200 ± 0.000" in mine and "| over Plain " in table
    of_paper = (folder / "compare.tex").read_text().splitlines()
    assert of_paper[0] == r"\begin{tabular}{l" + (header.count("|") - 2) * "r" + "}"
    assert r"30.500 $\pm$ 0.707 / 0.8500" in of_paper[4] and r"+0.200 $\pm$ 0.000" in of_paper[6]
    assert [line.split("|")[-3].strip() for line in (plain, long)] == ["1.0", "2.0"]
    for picture in ("compare", "time", "progress"):
        assert read_image(folder / f"{picture}.png").std() > 5
    again = [path.read_bytes() for path in sorted(folder.glob("*.[mp]*"))]
    draw_comparison(folder)
    assert [path.read_bytes() for path in sorted(folder.glob("*.[mp]*"))] == again


def test_what_nobody_teaches_is_told_apart(folder: Path) -> None:
    _, results = read_comparison(folder)
    assert {result.name: result.is_taught for result in results} == {
        "Plain": False, "Long": False, "LSFD": True,
    }  # fmt: skip


def test_what_is_no_comparison_is_named(folder: Path, tmp_path: Path) -> None:
    lost = folder / "records" / "LSFD_seed1.jsonl"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(LsfdError, match=r"LSFD_seed1\.jsonl is missing"):
        draw_comparison(folder)
    lost.write_bytes(kept)
    with pytest.raises(LsfdError, match=r"holds no comparison: it has no compare\.json"):
        draw_comparison(tmp_path / "records")
    (folder / "compare.json").write_text('{"seeds": [0], "methods": {"Plain": {}}}')
    with pytest.raises(LsfdError, match=r"compare\.json is damaged"):
        draw_comparison(folder)


GONE = object()
"""Stands for a value that is taken out."""


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("scale",), GONE),
        (("total_iter",), GONE),
        (("total_iter",), "abc"),
        (("seeds",), GONE),
        (("seeds",), []),
        (("seeds",), 2),
        (("seeds",), ["0"]),
        (("methods",), {}),
        (("methods",), []),
        (("methods", "LSFD"), None),
        (("methods", "LSFD", "steps"), "200"),
        (("methods", "LSFD", "seconds_per_step"), "0.3"),
        (("methods", "LSFD", "seconds_per_step"), float("nan")),
        (("methods", "LSFD", "peak_memory_bytes"), 10**400),
        (("methods", "LSFD", "peak_memory_bytes"), GONE),
        (("methods", "LSFD", "distillers"), ["LSFD"]),
        (("methods", "LSFD", "distillers"), [{"end": 3}]),
        (("methods", "LSFD", "distillers"), 3),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_damaged_summary_is_named(folder: Path, place: tuple[str, ...], value: Any) -> None:
    file = folder / "compare.json"
    about = json.loads(file.read_text())
    *outer, last = place
    part = about
    for name in outer:
        part = part[name]
    if value is GONE:
        del part[last]
    else:
        part[last] = value
    file.write_text(json.dumps(about))
    with pytest.raises(LsfdError, match=r"compare\.json is damaged; make it again"):
        draw_comparison(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000])
def test_a_summary_that_is_none_is_named(folder: Path, text: str) -> None:
    (folder / "compare.json").write_text(text)
    with pytest.raises(LsfdError, match=r"compare\.json is damaged; make it again"):
        draw_comparison(folder)


@pytest.mark.parametrize("name", ["l_pix", "psnr", "ssim"])
def test_a_number_too_large_for_a_float_is_named(folder: Path, name: str) -> None:
    file = folder / "records" / "LSFD_seed1.jsonl"
    lines = file.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if name in line)
    record = json.loads(lines[place])
    record["losses" if name == "l_pix" else "scores"][name] = 10**400
    file.write_text("\n".join([*lines[:place], json.dumps(record), *lines[place + 1 :]]) + "\n")
    with pytest.raises(LsfdError, match=rf"LSFD_seed1\.jsonl is damaged: line {place + 1} is no"):
        draw_comparison(folder)


def test_a_loss_is_compared_with_that_of_the_same_seed(folder: Path) -> None:
    _, (plain, long, mine) = read_comparison(folder)
    assert relative_loss(mine, plain) == pytest.approx({100: 80, 200: 80})
    assert relative_loss(plain, plain) == {100: 100, 200: 100}
    assert list(relative_loss(long, plain)) == [100, 200], "as far as both go"
    assert relative_loss(MethodResult("Stages", {}), plain) == {}
    black = MethodResult("Black", {}, losses={0: {100: 0.0, 200: 0.1}})
    assert relative_loss(black, black) == {200: 100}, "zero has no percentage"


class Counted(dict[int, float]):
    """A curve that counts how often somebody goes through its iterations."""

    times = 0

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return super().__iter__()


def test_a_curve_is_gone_through_a_few_times_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each of its points took seconds for a long run."""
    curve = Counted({i: float(i) for i in range(1, 1001)})
    assert settled_range([curve, {}]) == (200, 1000)
    assert curve.times == 1
    monkeypatch.setattr(effort, "relative_loss", lambda *_: curve)
    compared = [MethodResult("Plain", {}), MethodResult("LSFD", {})]
    effort.save_progress(compared, "Plain", tmp_path / "progress.png")
    assert curve.times < 10


@given(st.lists(st.floats(0, 1), max_size=20))
def test_labels_keep_their_order_and_distance(positions: list[float]) -> None:
    positions = sorted(positions)
    places = apart(positions, 0.05)
    gaps = [after - before for before, after in pairwise(places)]
    assert len(places) == len(positions) and all(gap >= 0.05 - 1e-9 for gap in gaps)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    wide = [0.1, 0.5, 0.9]
    assert apart(wide, 0.05) == wide, "what is far apart stays"
