"""What the soak tests share: arguments, and a record of what was tried and survived.

A soak test runs for as long as it is told and appends one line to ``results/trust/NAME.jsonl``: how
much was tried, what failed, with which seed, on which commit and hardware. CI runs a short form of
each, in ``tests/``, through the same functions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from lsfd import provenance

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "trust"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every soak test takes."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--seed", type=int, default=0, help="of all that is random")
    result.add_argument("--output", type=Path, default=RESULTS, help="folder of the records")
    return result


class Outcome(Protocol):
    """What was tried, and what came of it."""

    failures: list[str]

    def figures(self) -> dict[str, Any]:
        """Return what is recorded."""


def soak(
    name: str, given: argparse.Namespace, attempt: Callable[[Path, argparse.Namespace], Outcome]
) -> None:
    """Try something in a folder of its own, and record it with the seconds that it took.

    Raises:
        SystemExit: with status 0, with 1 if something failed, or saying what is missing here.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        try:
            outcome = attempt(Path(folder), given)
        except PermissionError as error:
            raise SystemExit(str(error)) from error
    seconds = round(time.monotonic() - began)
    keep(name, given.seed, {**outcome.figures(), "seconds": seconds}, given.output)
    raise SystemExit(1 if outcome.failures else 0)


def keep(name: str, seed: int, figures: Mapping[str, Any], output: Path) -> None:
    """Print the figures and append them, and where they come from, to ``NAME.jsonl``."""
    for key, value in figures.items():
        if not isinstance(value, (list, dict)):
            print(f"{key}: {value}")
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        **provenance.stamp(),
        "figures": dict(figures),
    }
    output.mkdir(parents=True, exist_ok=True)
    with (output / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
