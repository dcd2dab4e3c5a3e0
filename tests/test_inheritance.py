"""Option files that extend another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from option_texts import TEXT, message

from lsfd.config import load_options


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.yml").write_text(TEXT)
    (tmp_path / "methods").mkdir()
    return tmp_path


def child(base: Path, text: str) -> Path:
    file = base / "methods" / "child.yml"
    file.write_text(f"extends: ../base.yml\n{text}")
    return file


def test_mappings_merge_and_lists_are_replaced(base: Path) -> None:
    file = child(base, "name: child\ntrain: {total_iter: 7}\ndistillers: [{type: Output}]\n")
    options = load_options(file, ["scale=4"]).options
    original = load_options(base / "base.yml").options
    assert options.name == "child"
    assert options.train == original.train.model_copy(update={"total_iter": 7})
    assert [distiller.type for distiller in options.distillers] == ["Output"]
    assert options.datasets == original.datasets


def test_what_is_written_out_no_longer_extends(base: Path, tmp_path: Path) -> None:
    loaded = load_options(child(base, "name: child\n"))
    written = tmp_path / "written.yml"
    written.write_text(loaded.to_yaml())
    assert load_options(written).options == loaded.options


def test_mistakes_are_named_where_they_stand(base: Path) -> None:
    own = message(load_options, child(base, "train:\n  total_iter: -1\n"))
    assert "child.yml, line 3, train.total_iter" in own
    file = child(base, "name: child\n")
    (base / "base.yml").write_text(TEXT.replace("total_iter: 5e3", "total_itre: 5e3"))
    assert "base.yml, line 23, train.total_itre" in message(load_options, file)


def test_the_replaced_list_leaves_no_lines_behind(base: Path) -> None:
    text = message(load_options, child(base, "distillers: [{type: LSFD, start: x}]\n"))
    assert "child.yml, line 2, distillers.0.start" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: missing.yml\n", "line 1, extends: "),
        ("extends: 3\n", "must be the path of an option file"),
        ("extends: child.yml\n", "does one extend itself?"),
    ],
)
def test_wrong_extends(base: Path, text: str, expected: str) -> None:
    file = base / "child.yml"
    file.write_text(text)
    assert expected in message(load_options, file)
