"""Draw comparisons anew from their records, and put tables of files into READMEs.

    python scripts/tables.py

No run is needed: a comparison is drawn from its folder (compare.json, records). In README.md and
those below results/ a table that was copied from a file stands between two comments, of which the
first names the file, and which of its tables where it has several:

    <!-- table: compare_x4/compare.md 2 -->
    | ... |
    <!-- end -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import sizes

from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.errors import LsfdError
from lsfd.training.compared import SUMMARY, draw_comparison

ROOT = Path(__file__).resolve().parent.parent
READMES = (ROOT / "README.md", *sorted((ROOT / "results").rglob("README.md")))

_MARKER = re.compile(r"<!-- table:[^\n]*")
_MARKED = re.compile(
    r"(<!-- table: (\S+)(?: (\d+))? -->\n)(?:(?!<!-- table:).)*?(<!-- end -->\n)", re.DOTALL
)
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)


def main() -> None:
    """Draw, then fill in."""
    sizes.draw()
    for folder in comparisons():
        draw_comparison(folder)
    texts = {readme: filled(readme) for readme in READMES}  # A mistake in one changes none.
    for readme, text in texts.items():
        write_text(readme, text)


def comparisons() -> list[Path]:
    """Return the folders of all comparisons whose records are kept."""
    return sorted(path.parent for path in (ROOT / "results").glob(f"*/{SUMMARY}"))


def filled(readme: Path) -> str:
    """Return a README's text with each marked table as it is in its file now.

    Raises:
        LsfdError: a comment is not written as above, or names a file, or a table of it, that is not
            there.
    """
    text = readme.read_text(encoding="utf-8")
    whole = {match.start() for match in _MARKED.finditer(text)}
    for marker in _MARKER.finditer(text):
        if marker.start() not in whole:
            raise LsfdError(
                f"{readme}: {marker[0]} begins no table that can be filled in; write "
                "'<!-- table: FILE NUMBER -->' and, below the table, '<!-- end -->', each on a "
                "line of its own"
            )

    def replaced(match: re.Match[str]) -> str:
        first, name, number, last = match.groups()
        file = readme.parent / name
        tables = _TABLE.findall(file.read_text(encoding="utf-8")) if file.is_file() else []
        if not 1 <= int(number or 1) <= len(tables):
            raise LsfdError(
                f"{readme}: {first.strip()} names a table that is not there: {file} has "
                f"{len(tables)}; mend the comment, or make that file"
            )
        return first + tables[int(number or 1) - 1] + last

    return _MARKED.sub(replaced, text)


if __name__ == "__main__":
    sys.exit(exit_status("tables", main))
