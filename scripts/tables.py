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
from lsfd.training.compared import SUMMARY, draw_comparison

ROOT = Path(__file__).resolve().parent.parent
READMES = (ROOT / "README.md", *sorted((ROOT / "results").rglob("README.md")))

_MARKED = re.compile(r"(<!-- table: (\S+)(?: (\d+))? -->\n).*?(<!-- end -->\n)", re.DOTALL)
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)


def main() -> None:
    """Draw, then fill in."""
    sizes.draw()
    for folder in comparisons():
        draw_comparison(folder)
    for readme in READMES:
        write_text(readme, filled(readme))


def comparisons() -> list[Path]:
    """Return the folders of all comparisons whose records are kept."""
    return sorted(path.parent for path in (ROOT / "results").glob(f"*/{SUMMARY}"))


def filled(readme: Path) -> str:
    """Return a README's text with each marked table as it is in its file now.

    Raises:
        SystemExit: a comment names a file, or a table of it, that is not there.
    """

    def replaced(match: re.Match[str]) -> str:
        first, name, number, last = match.groups()
        file = readme.parent / name
        tables = _TABLE.findall(file.read_text(encoding="utf-8")) if file.is_file() else []
        if len(tables) < int(number or 1):
            raise SystemExit(f"{readme}: {first.strip()} names a table that is not there")
        return first + tables[int(number or 1) - 1] + last

    return _MARKED.sub(replaced, readme.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(exit_status("tables", main))
