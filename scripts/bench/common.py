"""What the speed measurements share: contestants, ratios, a table, and a record.

A time says something about one machine on one day. So a row is always a ratio of two times from
one run, in which the contestants took turns: a machine that is busy for a while slows all alike.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from lsfd import provenance
from lsfd.reporting.tables import Cell, markdown_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "speed"


@dataclass(frozen=True)
class Row:
    """One piece of work, done in two ways.

    Attributes:
        work: what is done.
        peer: how it is usually done.
        ours: how this project does it.
        unit: what the times are for, such as ``step``.
        peer_seconds: for one unit, one time for each round.
        our_seconds: the same, from the same rounds.
        goal: the ratio to reach; None: none was set.
        bound: what cannot be left out, or beaten, on this machine.
        bound_seconds: how long that takes; None: not a time.
    """

    work: str
    peer: str
    ours: str
    unit: str
    peer_seconds: Sequence[float]
    our_seconds: Sequence[float]
    goal: float | None = None
    bound: str = ""
    bound_seconds: float | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times as long the peer took, in each round."""
        return [p / o for p, o in zip(self.peer_seconds, self.our_seconds, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """Return everything, with the ratio."""
        return {**asdict(self), "ratio": self.ratio, "ratios": self.ratios}


def per_unit(seconds: Sequence[float], units: float) -> list[float]:
    """Return seconds for one unit, given those for ``units`` of them."""
    return [each / units for each in seconds]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every measurement takes."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--rounds", type=int, default=5, help="how often each contestant runs")
    result.add_argument("--output", type=Path, default=RESULTS, help="folder of the records")
    return result


def keep(
    name: str, rows: Sequence[Row], output: Path, details: Mapping[str, Any] | None = None
) -> None:
    """Print the rows as a table and append them, and where they come from, to ``NAME.jsonl``."""
    print(table(rows))
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **provenance.stamp(),
        "rows": [row.to_json() for row in rows],
        "details": dict(details or {}),
    }
    output.mkdir(parents=True, exist_ok=True)
    with (output / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    header = ["work", "peer", "s", "ours", "s", "ratio", "goal", "bound", "s"]
    return markdown_table(header, [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    goal = "-" if row.goal is None else f"{row.goal:g}"
    spread = f"{min(row.ratios):.3g} to {max(row.ratios):.3g}"
    return [
        f"{row.work} ({row.unit})",
        row.peer,
        f"{median(row.peer_seconds):.3g}",
        row.ours,
        f"{median(row.our_seconds):.3g}",
        f"{row.ratio:.3g} ({spread})",
        goal,
        row.bound,
        "-" if row.bound_seconds is None else f"{row.bound_seconds:.3g}",
    ]


class Contestant:
    """A contestant in a process of its own, so that no settings of one reach another.

    The process starts with ``prepare(*arguments)``, which returns what is then called as often as
    this object is.
    """

    def __init__(self, prepare: Callable[..., Callable[[], object]], *arguments: object) -> None:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        self._pipe = ours
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, prepare, arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        ours.recv()  # It is prepared.

    def __call__(self) -> float:
        """Let it run once; return its resident memory in bytes."""
        self._pipe.send(None)
        return self._pipe.recv()


def _serve(
    pipe: Connection, prepare: Callable[..., Callable[[], object]], arguments: Sequence[object]
) -> None:
    run = prepare(*arguments)
    pipe.send(None)
    while True:
        try:
            pipe.recv()
        except EOFError:  # The measurement is over.
            return
        run()
        pipe.send(resident_bytes())


def resident_bytes() -> int:
    """Return this process's resident memory."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
