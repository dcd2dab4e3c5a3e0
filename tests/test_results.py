"""What the READMEs say is what was measured: tables come from files, files from records."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from lsfd.training.compared import draw_comparison

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import sizes  # noqa: E402
import tables  # noqa: E402


@pytest.mark.parametrize("readme", tables.READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_those_of_their_files(readme: Path) -> None:
    assert readme.read_text(encoding="utf-8") == tables.filled(readme)


@pytest.mark.parametrize("folder", tables.comparisons(), ids=lambda path: path.name)
def test_a_comparison_is_what_its_records_say(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.md", "*.png"))
    assert draw_comparison(copy) == (folder / "compare.md").read_text(encoding="utf-8")


def test_gains_over_sizes_are_what_the_records_say() -> None:
    cells = sizes.read()
    if not cells:
        pytest.skip("no such comparison was made yet")
    assert (sizes.OUT / "table.md").read_text(encoding="utf-8") == sizes.table(cells)


def test_a_table_is_filled_in_and_a_lost_one_named(tmp_path: Path) -> None:
    (tmp_path / "two.md").write_text("| a |\n| - |\n\ntext\n\n| b |\n| - |\n")
    readme = tmp_path / "README.md"
    readme.write_text("x\n<!-- table: two.md 2 -->\nold\n<!-- end -->\ny\n")
    wanted = "x\n<!-- table: two.md 2 -->\n| b |\n| - |\n<!-- end -->\ny\n"
    assert tables.filled(readme) == wanted
    for lost in ("two.md 3", "three.md"):
        readme.write_text(f"<!-- table: {lost} -->\n<!-- end -->\n")
        with pytest.raises(SystemExit, match="names a table that is not there"):
            tables.filled(readme)


@pytest.mark.parametrize("readme", tables.READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pictures_and_files_that_are_named_are_there(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (readme.parent / target).exists(), target
