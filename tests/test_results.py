"""What the READMEs say is what was measured: tables come from files, files from records."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from lsfd.training.compared import draw_comparison

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import quickstart  # noqa: E402
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
        pytest.skip("results/sizes is empty: scripts/sizes.py makes it, in hours")
    assert (sizes.OUT / "table.md").read_text(encoding="utf-8") == sizes.table(cells)


def test_the_quickstart_is_what_its_record_says() -> None:
    record = json.loads((ROOT / "results" / "quickstart_x4.json").read_text())
    table = (ROOT / "results" / "quickstart_x4.md").read_text(encoding="utf-8")
    assert quickstart.table(record["models"]) == table


NUMBERS = re.compile(r"<!-- numbers: (\S+) -->\n(.*?)(?=\n## |\Z)", re.DOTALL)
"""A section of a README whose decibels come from one file."""
SECTIONS = [
    (readme.parent / name, text)
    for readme in tables.READMES
    for name, text in NUMBERS.findall(readme.read_text(encoding="utf-8"))
]


def test_decibels_are_those_of_the_file_that_a_section_names() -> None:
    assert SECTIONS
    for path, text in SECTIONS:
        file = path.read_text(encoding="utf-8")
        known = [float(number) for number in re.findall(r"[-+]?\d+\.\d+", file)]
        told = re.findall(r"([-+]?\d+\.(\d+)) dB", text)
        assert told
        for number, digits in told:
            sign = "+" if number[0] in "+-" else ""
            matches = [
                value
                for value in known
                if f"{value if sign else abs(value):{sign}.{len(digits)}f}" == number
            ]
            assert matches, f"{path} has no {number} dB"


SPEED = {  # Rows of README's table -> those of speed.md.
    "LSFD training step": ["LSFD step (step): lsfd against BasicSR"],
    "... with the teacher's results": ["LSFD step, cached teacher (step)"],
    "training samples": [
        "samples of those of 590 images that a patch fits into (sample): lsfd, store against "
        "PairedImageDataset, PNG",
        "samples of 24 images of 2040 x 1356 (sample): lsfd, store against PairedImageDataset, PNG",
    ],
    "PSNR and SSIM": ["PSNR and SSIM of 219 images"],
    "`lsfd upscale` of a folder": [
        f"320 x 256 to x4 (image): lsfd upscale against {peer}"
        for peer in ("BasicSR", "ONNX Runtime", "Real-ESRGAN")
    ],
    "... twenty sizes": [
        f"of 20 sizes (image): lsfd upscale against {peer}"
        for peer in ("BasicSR", "ONNX Runtime", "Real-ESRGAN")
    ],
    "`lsfd --help`": ["help text", "one small image"],
}


def row_of(text: str, start: str) -> list[str]:
    """Return the cells of the one row of a Markdown table that begins so."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("start", SPEED)
def test_ratios_are_those_that_were_measured(start: str) -> None:
    told = row_of((ROOT / "README.md").read_text(encoding="utf-8"), start)[-1]
    table = (ROOT / "results" / "speed" / "speed.md").read_text(encoding="utf-8")
    measured = [float(row_of(table, work)[1]) for work in SPEED[start]]
    assert [float(ratio) for ratio in told.split(" / ")] == pytest.approx(measured, rel=0.02)


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
