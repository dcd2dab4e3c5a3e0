"""What a comparison leaves in a folder, and that tables and pictures are made of it alone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.reporting.comparison import MethodResult
from lsfd.reporting.effort import relative_loss
from lsfd.reporting.labels import apart
from lsfd.training.compared import draw_comparison, read_comparison
from lsfd.training.records import append_record

METHODS = {"Plain": [{"type": "Plain"}], "Long": None, "LSFD": [{"type": "LSFD"}]}
GAIN = {"Plain": 0.0, "Long": 0.1, "LSFD": 0.2}
STEPS = {"Plain": 200, "Long": 400, "LSFD": 200}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    about = {
        name: {
            "steps": STEPS[name],
            "seconds_per_step": 0.3,
            "peak_memory_bytes": 2**30,
            "distillers": distillers,
        }
        for name, distillers in METHODS.items()
    }
    summary = {"scale": 4, "total_iter": 200, "seeds": [0, 1], "methods": about}
    (tmp_path / "compare.json").write_text(json.dumps(summary))
    (tmp_path / "records").mkdir()
    for name in METHODS:
        for seed in (0, 1):
            keep_run(tmp_path / "records" / f"{name}_seed{seed}.jsonl", name, seed)
    return tmp_path


def keep_run(file: Path, name: str, seed: int) -> None:
    for iteration in range(100, STEPS[name] + 1, 100):
        losses = {"l_pix": 0.1 * (1 + seed) * (1 - GAIN[name])}
        append_record(file, {"kind": "train", "iteration": iteration, "losses": losses})
    scores = {"psnr": 30 + seed + GAIN[name], "ssim": 0.85}
    images = {image: {"psnr": scores["psnr"] + place} for place, image in enumerate("ab")}
    for name_of_set in ("Set5", "Set14"):
        append_record(
            file,
            {
                "kind": "val", "iteration": STEPS[name], "set": name_of_set,
                "scores": scores, "images": images,
            },
        )  # fmt: skip


def test_tables_and_pictures_are_made_of_the_folder_alone(folder: Path) -> None:
    table = draw_comparison(folder)
    assert (folder / "compare.md").read_text() == table
    header, _, plain, long, mine = table.splitlines()[:5]
    assert "gain (Set14)" in header and "minutes" in header
    assert "30.500 ± 0.707 / 0.8500" in plain
    assert "+0.200 ± 0.000" in mine and "over Plain (Set5)" in table
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
    with pytest.raises(LsfdError, match=r"holds no comparison: it has no compare\.json"):
        draw_comparison(tmp_path / "records")
    (folder / "compare.json").write_text('{"seeds": [0], "methods": {"Plain": {}}}')
    with pytest.raises(LsfdError, match=r"compare\.json is damaged"):
        draw_comparison(folder)


def test_a_loss_is_compared_with_that_of_the_same_seed(folder: Path) -> None:
    _, (plain, long, mine) = read_comparison(folder)
    assert relative_loss(mine, plain) == pytest.approx({100: 80, 200: 80})
    assert relative_loss(plain, plain) == {100: 100, 200: 100}
    assert list(relative_loss(long, plain)) == [100, 200], "as far as both go"
    assert relative_loss(MethodResult("Stages", {}), plain) == {}


@given(st.lists(st.floats(0, 1), max_size=20))
def test_labels_keep_their_order_and_distance(positions: list[float]) -> None:
    positions = sorted(positions)
    places = apart(positions, 0.05)
    gaps = [after - before for before, after in pairwise(places)]
    assert len(places) == len(positions) and all(gap >= 0.05 - 1e-9 for gap in gaps)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    wide = [0.1, 0.5, 0.9]
    assert apart(wide, 0.05) == wide, "what is far apart stays"
