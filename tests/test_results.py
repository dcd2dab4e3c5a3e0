"""What the READMEs say is what was measured: tables come from files, files from records."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from lsfd.errors import LsfdError
from lsfd.training.compared import draw_comparison

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import early  # noqa: E402
import quickstart  # noqa: E402
import sizes  # noqa: E402
import tables  # noqa: E402


@pytest.mark.parametrize("readme", tables.READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_those_of_their_files(readme: Path) -> None:
    assert readme.read_text(encoding="utf-8") == tables.filled(readme)


@pytest.mark.parametrize("folder", tables.comparisons(), ids=lambda path: path.name)
def test_a_comparison_is_what_its_records_say(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.md", "*.tex", "*.png"))
    assert draw_comparison(copy) == (folder / "compare.md").read_text(encoding="utf-8")
    of_paper = (folder / "compare.tex").read_text(encoding="utf-8")
    assert (copy / "compare.tex").read_text(encoding="utf-8") == of_paper


def test_gains_over_sizes_are_what_the_records_say() -> None:
    cells = sizes.read()
    if not cells:
        pytest.skip("results/sizes is empty: scripts/sizes.py makes it, in hours")
    assert (sizes.OUT / "table.md").read_text(encoding="utf-8") == sizes.table(cells)


def test_the_quickstart_is_what_its_record_says() -> None:
    record = json.loads((ROOT / "results" / "quickstart_x4.json").read_text())
    table = (ROOT / "results" / "quickstart_x4.md").read_text(encoding="utf-8")
    assert quickstart.table(record["models"]) == table


@pytest.mark.parametrize("records", [None, [], [{"kind": "run", "data": "images"}]])
def test_a_record_without_the_scores_to_draw_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[dict[str, str]] | None
) -> None:
    file = tmp_path / "late.jsonl"
    if records is not None:
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(early, "RUNS", {"late": file})
    with pytest.raises(LsfdError, match=r"late\.jsonl is missing, or has no scores on Set5"):
        early.curves()


NUMBERS = re.compile(r"<!-- numbers: (\S+(?: \S+)*) -->\n(.*?)(?=\n## |\Z)", re.DOTALL)
"""A section of a README whose decibels come from one file, or from several."""


def unknown_decibels(readme: Path) -> tuple[int, list[str]]:
    """Return how many sections name files, and the decibels in them that no such file has."""
    text = readme.read_text(encoding="utf-8")
    sections = NUMBERS.findall(text)
    assert len(sections) == text.count("<!-- numbers:"), f"{readme}: a comment is misspelt"
    unknown = []
    for names, section in sections:
        files = [(readme.parent / name).read_text(encoding="utf-8") for name in names.split(" ")]
        known = [float(n) for file in files for n in re.findall(r"[-+]?\d+\.\d+", file)]
        told = re.findall(r"([-+]?\d+\.(\d+)) dB", section)
        assert told
        for number, digits in told:
            sign = "+" if number[0] in "+-" else ""
            rounded = {f"{v if sign else abs(v):{sign}.{len(digits)}f}" for v in known}
            if number not in rounded:
                unknown.append(f"{names}: {number} dB")
    return len(sections), unknown


def test_decibels_are_those_of_the_files_that_a_section_names() -> None:
    found = [unknown_decibels(readme) for readme in tables.READMES]
    assert sum(sections for sections, _ in found) > 0
    assert not [number for _, unknown in found for number in unknown]


def test_decibels_may_come_from_several_files(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("| +0.123 |\n")
    (tmp_path / "b.md").write_text("| 30.456 |\n")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- numbers: a.md b.md -->\n+0.12 dB, 30.46 dB\n\n## Next\n1.00 dB\n")
    assert unknown_decibels(readme) == (1, [])
    readme.write_text("<!-- numbers: a.md b.md -->\n+0.12 dB, 30.47 dB\n")
    assert unknown_decibels(readme) == (1, ["a.md b.md: 30.47 dB"])
    readme.write_text("<!-- numbers:  a.md -->\n30.47 dB\n")
    with pytest.raises(AssertionError, match="misspelt"):
        unknown_decibels(readme)


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
    for lost in ("two.md 3", "two.md 0", "three.md"):
        readme.write_text(f"<!-- table: {lost} -->\n<!-- end -->\n")
        with pytest.raises(LsfdError, match="names a table that is not there"):
            tables.filled(readme)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table: two.md -->\nold\n\ntext\n<!-- table: two.md 2 -->\nold\n<!-- end -->\n",
        "<!-- table: two.md  2 -->\nold\n<!-- end -->\n",
        "<!-- table: two.md 2 -->\nold\n<!-- end -->",
        "<!-- table: two.md second -->\nold\n<!-- end -->\n",
    ],
)
def test_a_misspelt_comment_is_named_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "two.md").write_text("| a |\n| - |\n\ntext\n\n| b |\n| - |\n")
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text("<!-- table: two.md -->\nold\n<!-- end -->\n")
    bad.write_text(text)
    monkeypatch.setattr(tables, "READMES", (good, bad))
    monkeypatch.setattr(tables, "comparisons", list)
    monkeypatch.setattr(sizes, "draw", lambda: None)
    with pytest.raises(LsfdError, match=r"bad\.md: <!-- table: two\.md.* begins no table"):
        tables.main()
    assert "old" in good.read_text() and bad.read_text() == text


@pytest.mark.parametrize("readme", tables.READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pictures_and_files_that_are_named_are_there(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (readme.parent / target).exists(), target
