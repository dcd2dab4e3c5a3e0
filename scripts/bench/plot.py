"""Draw all ratios that were kept, and write them as a table.

    python scripts/bench/plot.py

Reads every `results/speed/*.jsonl`, whose lines are runs on various days and machines, and writes
`speed.png` and `speed.md` beside them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS
from matplotlib.ticker import NullLocator, ScalarFormatter

from lsfd.atomic import write_text
from lsfd.reporting.style import ACCENT, MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import markdown_table


@dataclass
class Work:
    """One row in all its runs."""

    goal: float | None
    hardware: set[str] = field(default_factory=set)
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median over runs."""
        return median(self.ratios)


GROWTH = "growth.jsonl"
"""Compares with itself, and has a picture of its own."""


def read(files: Iterable[Path]) -> dict[str, Work]:
    """Return the rows of all runs by what they compare."""
    works: dict[str, Work] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            _add(works, json.loads(line))
    return works


def _add(works: dict[str, Work], record: Mapping[str, Any]) -> None:
    for row in record["rows"]:
        name = f"{row['work']} ({row['unit']}): {row['ours']} against {row['peer']}"
        work = works.setdefault(name, Work(row["goal"]))
        work.goal = row["goal"]
        work.hardware.add(record["hardware"])
        work.ratios.append(row["ratio"])


def table(works: Mapping[str, Work]) -> str:
    """Return all rows as a Markdown table."""
    header = ["work", "times as fast", "in each run", "goal", "hardware"]
    rows = [
        [
            name,
            f"{work.ratio:.3g}",
            ", ".join(f"{ratio:.3g}" for ratio in work.ratios),
            "-" if work.goal is None else f"{work.goal:.3g}",
            "; ".join(sorted(work.hardware)),
        ]
        for name, work in works.items()
    ]
    return markdown_table(header, rows)


def draw(works: Mapping[str, Work], path: Path) -> None:
    """Draw a bar for each row, a point for each run, a line for each goal."""
    names: Sequence[str] = list(works)[::-1]
    with saved_figure(path, 1 + 0.33 * len(names), "How many times as fast as the peer") as figure:
        axes = figure.add_subplot()
        for place, name in enumerate(names):
            work = works[name]
            axes.barh(place, work.ratio - 1, left=1, height=0.6, color=PALETTE[5])
            axes.plot(work.ratios, [place] * len(work.ratios), ".", color=PALETTE[0])
            label = f"  {work.ratio:.3g}"
            axes.text(max(*work.ratios, 1), place, label, va="center", fontsize=8)
            if work.goal is not None:
                axes.plot([work.goal] * 2, [place - 0.4, place + 0.4], color=ACCENT)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xscale("log")
        axes.set_xlim(right=3 * max(max(work.ratios) for work in works.values()))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(1, color=MUTED, linewidth=0.8)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("bar: median of the runs; point: one run; line: goal")


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the records")
    folder = parser.parse_args().output
    files = sorted(folder.glob("*.jsonl"))
    draw(read(file for file in files if file.name != GROWTH), folder / "speed.png")
    works = table(read(files))
    write_text(folder / "speed.md", works)
    print(works)


if __name__ == "__main__":
    main()
