"""The measurement of growth: its pieces that need no quarter of an hour."""

from __future__ import annotations

import json
import sys
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsfd.imaging.files import read_image, write_image

BENCH = Path(__file__).parent.parent / "scripts" / "bench"
CURVES: dict[str, dict[str, list[float]]] = {
    "steps": {
        "iteration": [float(n) for n in range(1, 31)], "seconds": [0.01] * 30,
        "resident": [9e8] * 30, "own": [5e8] * 30,
    },
    "images": {
        "images": [1000, 10000, 100000], "seconds": [1e-4] * 3,
        "resident": [5e8, 6e8, 7e8], "own": [5e8] * 3,
    },
    "pixels": {
        "megapixels": [1, 4, 25, 400], "seconds": [1, 2, 8, 110], "resident": [2e8, 3e8, 4e8, 4e8],
    },
}  # fmt: skip


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.syspath_prepend(str(BENCH.parent))
    import growth

    yield growth
    for name in ("growth", "growth_picture", "common", "upscale_anything"):
        sys.modules.pop(name, None)


def test_the_picture_is_of_the_newest_curves(growth: Any, tmp_path: Path) -> None:
    records = tmp_path / "growth.jsonl"
    older = {"steps": {**CURVES["steps"], "seconds": [1.0] * 30}}
    pictures = []
    for details in (older, {"pixels": CURVES["pixels"]}, CURVES):
        with records.open("a") as file:
            file.write(json.dumps({"details": details}) + "\n")
        growth.draw_newest(records)
        pictures.append(read_image(tmp_path / "growth.png"))
    assert all(picture.std() > 5 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_memory_that_is_held_shows(growth: Any) -> None:
    # Not an array, which may take memory that the process has had before.
    with mmap(-1, 2**26, flags=MAP_PRIVATE | MAP_ANONYMOUS) as held:
        before = growth.memory_of()
        for page in range(0, len(held), 4096):
            held[page] = 1
        after = growth.memory_of()
        for name in ("resident", "own"):
            assert after[name] - before[name] == pytest.approx(len(held), rel=0.1)


def test_large_images_are_made_of_photographs(
    growth: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photograph = np.random.default_rng(1).integers(0, 256, (240, 250, 3), np.uint8)
    write_image(tmp_path / "train" / "photograph.png", photograph)
    monkeypatch.setenv("LSFD_DATA", str(tmp_path))
    large = growth.mosaic(500)
    assert large.shape == (500, 500, 3)
    assert large.std() == pytest.approx(photograph.std(), rel=0.05)
    growth.write_crops(tmp_path / "many", 5)
    assert [path.name for path in sorted((tmp_path / "many" / "000").iterdir())] == [
        f"00000{number}.png" for number in range(5)
    ]
