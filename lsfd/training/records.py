"""``metrics.jsonl``: what a run measured, one JSON object a line.

``{"kind": "run", ...}`` once: where the run comes from (seed, data, commit, versions, hardware).
``{"kind": "train", "iteration": 100, "losses": {...}, "lr": 1e-4, "seconds_per_iteration": 0.1}``
``{"kind": "val", "iteration": 1000, "set": "Set5", "scores": {"psnr": 30.1}}``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lsfd.atomic import write_text

Record = dict[str, Any]


def append_record(path: Path, record: Record) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_records(path: Path) -> list[Record]:
    """Return all whole lines; the last one may have been cut off by a kill."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def forget_after(path: Path, iteration: int) -> None:
    """Drop the records of iterations that a resume from ``iteration`` is going to repeat."""
    kept = [record for record in read_records(path) if record.get("iteration", 0) <= iteration]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
