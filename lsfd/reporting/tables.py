"""Markdown tables whose raw text reads well in a terminal, too."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from lsfd.terminal import visible

Cell = str | float | None

_MARKUP = re.compile(r"\\(?=[|<\[\\])|[|<\[]")


def markdown_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    bold_best: Mapping[int, Literal["max", "min"]] | None = None,
    digits: Mapping[int, int] | None = None,
) -> str:
    """Return a Markdown table with its columns padded to equal width.

    Args:
        header: one name per column.
        rows: one cell per column; ``None`` is a value that does not exist and becomes ``-``.
            Columns that hold only numbers are aligned to the right.
        bold_best: columns whose best number is set in bold. Numbers that look equal in the table
            are equally good; NaN is never best, and one number alone is not a contest.
        digits: decimals per column (otherwise 2 for a float, 0 for an int).

    Returns:
        The lines of the table, each with its newline.

    Raises:
        ValueError: a row is not as long as the header.
    """
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, the header has {len(header)}")
    bests, decimals = bold_best or {}, digits or {}
    columns = [
        _Column(name, [row[i] for row in rows], bests.get(i), decimals.get(i))
        for i, name in enumerate(header)
    ]
    lines = zip(*(column.lines() for column in columns), strict=True)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def escape(text: str) -> str:
    """Return text that Markdown shows as it is: no cell ends in it, no tag, link or image begins.

    A backslash is doubled only where it would stand before such a sign.
    """
    return _MARKUP.sub(r"\\\g<0>", visible(" ".join(text.split())))


def fewer_seeds(there: int, seeds: int) -> str:
    """Return what a cell says of the seeds it rests on: nothing where all are there."""
    return "" if there == seeds else f" ({there} of {seeds} seeds)"


class _Column:
    def __init__(
        self,
        name: str,
        cells: Sequence[Cell],
        best: Literal["max", "min"] | None,
        digits: int | None,
    ) -> None:
        self.name = name
        self.cells = cells
        self.digits = digits
        self.best = self._best_text(best) if best else None
        values = [cell for cell in cells if cell is not None]
        self.right = bool(values) and not any(isinstance(value, str) for value in values)

    def _best_text(self, best: Literal["max", "min"]) -> str | None:
        numbers = [c for c in self.cells if isinstance(c, int | float) and not math.isnan(c)]
        if len(numbers) < 2:
            return None
        return self._text(max(numbers) if best == "max" else min(numbers))

    def _text(self, cell: Cell) -> str:
        if cell is None:
            return "-"
        if isinstance(cell, str):
            return escape(cell)
        digits = self.digits
        if digits is None:
            digits = 0 if isinstance(cell, int) else 2
        return f"{cell:,.{digits}f}"

    def lines(self) -> list[str]:
        """Return the column from its name to its last cell, all padded to one width."""
        texts = [self._text(cell) for cell in self.cells]
        if self.best is not None:
            # The spaces keep the decimal points of plain and bold numbers below each other.
            texts = [f"**{text}**" if text == self.best else f"{text}  " for text in texts]
        texts.insert(0, self._text(self.name))
        width = max(3, *map(len, texts))
        padded = [text.rjust(width) if self.right else text.ljust(width) for text in texts]
        rule = "-" * (width - 1) + ":" if self.right else "-" * width
        return [padded[0], rule, *padded[1:]]
