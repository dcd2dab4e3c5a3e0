"""Files, folders and patterns, and where their outputs go."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsfd.errors import LsfdError
from lsfd.inference.naming import plan


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos [old]"
    for name in ("a.png", "b.JPG", "2024/c.jpg", "2024/may/d.jpg", "2024/e.gif", "2024/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(sources: list[Path], out: Path, extension: str | None = None) -> set[str]:
    outputs = plan(sources, out, "", extension).outputs.values()
    return {path.relative_to(out).as_posix() for path in outputs}


def test_patterns_keep_the_folders_behind_the_first_wildcard(photos: Path, tmp_path: Path) -> None:
    out, plain = tmp_path / "out", photos.rename(tmp_path / "photos")
    assert names([plain / "2024" / "*.jpg"], out) == {"c.jpg"}
    assert names([plain / "**" / "*.jpg"], out) == {"2024/c.jpg", "2024/may/d.jpg"}
    assert names([tmp_path / "ph*s" / "2024" / "*"], out) == {
        "photos/2024/c.jpg", "photos/2024/e.png",
    }  # fmt: skip
    assert names([plain / "[ab].*"], out) == {"a.png", "b.JPG"}


def test_a_name_with_brackets_that_exists_is_no_pattern(photos: Path, tmp_path: Path) -> None:
    assert len(names([photos], tmp_path / "out")) == 5
    assert names([photos / "a.png"], tmp_path / "out") == {"a.png"}


def test_several_sources(photos: Path, tmp_path: Path) -> None:
    found = plan([photos / "a.png", photos / "2024"], tmp_path / "out", "", None)
    assert {path.name for path in found.outputs} == {"a.png", "c.jpg", "d.jpg", "e.gif"}
    assert found.skipped == [photos / "2024" / "notes.txt"]


def test_formats_that_are_only_read_become_others(photos: Path, tmp_path: Path) -> None:
    (photos / "f.jfif").touch()
    found = names([photos], tmp_path / "out")
    assert {"2024/e.png", "f.jpg"} <= found
    assert "2024/e.webp" in names([photos], tmp_path / "out", "webp")


def test_outputs_among_what_a_pattern_finds_are_not_read(photos: Path, tmp_path: Path) -> None:
    plain = photos.rename(tmp_path / "photos")
    out = plain / "2024" / "may"
    assert names([plain / "**" / "*.jpg"], out) == {"2024/c.jpg"}


def test_a_pattern_without_match(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"nothing is called like .*\*\.png; put a pattern into"):
        plan([tmp_path / "*.png"], tmp_path / "out", "", None)
