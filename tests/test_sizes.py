"""scripts/sizes.py: what it plans, and what it makes of records."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import keep_invented_comparison
from matplotlib.figure import Figure

from lsfd.imaging.files import read_image

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import sizes

METHODS = {"Plain": ([], 0.0, 200), "LSFD": ([], 0.2, 200), "LSFD_start": ([], 0.1, 200)}


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSFD_DATA", "/data")
    monkeypatch.chdir(sizes.ROOT)


def test_no_two_comparisons_share_a_run_but_those_of_compare_x4() -> None:
    planned = [sizes.planned(size, n, []) for size in sizes.SIZES for n in sizes.LENGTHS[size]]
    folders = [run.folder.root for comparison in planned for run in comparison.runs]
    assert len(set(folders)) == len(folders)
    assert sizes.planned("s", 2000, []).folder.name == "compare_x4"
    longest = sizes.planned("xs", 8000, []).runs[0].loaded.options
    assert longest.train.total_iter == longest.val.val_freq == 8000
    assert longest.network_g.type == "SlimEDSR"
    first = sizes.planned("xs", 8000, []).runs[2].loaded.options.distillers
    assert [(each.start, each.end) for each in first] == [(1, 2000)]


def test_table_and_picture_are_made_of_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "OUT", tmp_path)
    keep_invented_comparison(tmp_path / "xs_500", METHODS)
    keep_invented_comparison(tmp_path / "s_500", METHODS)
    sizes.draw()
    header, _, *rows = (tmp_path / "table.md").read_text().splitlines()
    assert "LSFD (Set14)" in header and len(rows) == 2
    assert rows[0].startswith("| xs ") and "30.500" in rows[0] and "+0.200 ± 0.000" in rows[0]
    assert read_image(tmp_path / "sizes.png").std() > 5


def test_who_lost_seeds_of_a_set_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "OUT", tmp_path)
    folder = keep_invented_comparison(tmp_path / "s_500", METHODS)
    for run in ("LSFD_seed0", "LSFD_start_seed0", "LSFD_start_seed1"):
        file = folder / "records" / f"{run}.jsonl"
        lines = [line for line in file.read_text().splitlines() if "Set14" not in line]
        file.write_text("\n".join(lines) + "\n")
    sizes.draw()
    *_, row = (tmp_path / "table.md").read_text().splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[-3:] == ["30.500", "+0.200 (1 of 2 seeds)", "-"]


def test_the_legend_has_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    monkeypatch.setattr(sizes, "OUT", tmp_path)
    keep_invented_comparison(tmp_path / "s_500", METHODS)
    sizes.save_picture(sizes.read(), tmp_path / "sizes.png")
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["s, LSFD", "s, LSFD_start"]
