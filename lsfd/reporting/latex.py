"""Tables for a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from lsfd.reporting.tables import Cell
from lsfd.terminal import visible

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
        "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
        "[": "{[}", "*": "{*}", "±": r"$\pm$",
    }
)  # fmt: skip

_MINUS = re.compile(r"(?<![^\s(])-(?=\d)")
"""A hyphen before a number."""


def latex_table(
    corner: str,
    names: Sequence[str],
    columns: Mapping[str, Sequence[Cell]],
    digits: Mapping[str, int] | None = None,
    best: Mapping[str, Literal["max", "min"]] | None = None,
) -> str:
    """Return a ``tabular`` with the rules of the package booktabs.

    Args:
        corner: head of the first column.
        names: of the rows.
        columns: by head: a cell for each row; None becomes a dash.
        digits: decimals by head (otherwise 2 for a float, 0 for an int).
        best: heads whose largest or smallest number is set in bold.
    """
    decimals, wanted = digits or {}, best or {}
    texts = [
        _column(cells, decimals.get(head), wanted.get(head)) for head, cells in columns.items()
    ]
    rows = zip((escape(name) for name in names), *texts, strict=True)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(escape, (corner, *columns))) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return text as LaTeX prints it; behind the end of a row, [ and * would be its arguments."""
    return visible(" ".join(text.split())).translate(_SPECIAL)


def _column(
    cells: Sequence[Cell], digits: int | None, best: Literal["max", "min"] | None
) -> list[str]:
    texts = [_text(cell, digits) for cell in cells]
    numbers = [cell for cell in cells if isinstance(cell, int | float) and not math.isnan(cell)]
    if best is None or len(numbers) < 2:
        return texts
    winner = _text(max(numbers) if best == "max" else min(numbers), digits)
    return [rf"\textbf{{{text}}}" if text == winner else text for text in texts]


def _text(cell: Cell, digits: int | None) -> str:
    if cell is None:
        return "--"
    if isinstance(cell, str):
        return _MINUS.sub("$-$", escape(cell))
    if math.isinf(cell):
        return r"$\infty$"
    if digits is None:
        digits = 0 if isinstance(cell, int) else 2
    return _MINUS.sub("$-$", f"{cell:,.{digits}f}")
