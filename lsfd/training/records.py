"""``metrics.jsonl``: what a run measured, one JSON object a line.

JSON has no infinity, which is the PSNR of identical images: it is the string ``"inf"``.

``{"kind": "run", ...}`` at each start: seed, data, commit, versions, hardware.
``{"kind": "train", "iteration": 100, "losses": {...}, "lr": 1e-4, "seconds_per_iteration": 0.1}``
``{"kind": "val", "iteration": 1000, "set": "Set5", "scores": {"psnr": 30.1}, "images": {"baby":
{"psnr": 32.0}}}``; older ones have no images.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from lsfd.atomic import write_text
from lsfd.disk import disk_error
from lsfd.errors import LsfdError

Record = dict[str, Any]

RESUME = "go on with --auto_resume"
"""What to do when the disk that a run could not write to is mended."""

_NEEDED = {
    "run": ("data",), "train": ("iteration", "losses"), "val": ("iteration", "set", "scores"),
}  # fmt: skip
"""Parts without which a record of a kind is damaged."""

_INFINITY = ("inf", "-inf", "nan")


def append_record(path: Path, record: Record) -> None:
    """Add one line.

    Raises:
        LsfdError: the disk is full, or the like.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(strict(record), allow_nan=False) + "\n")
    except OSError as error:
        raise disk_error(path, error, RESUME) from error


def read_records(path: Path, *, complete: bool = False) -> list[Record]:
    """Return all records; the last line may have been cut off by a kill.

    Args:
        path: the file.
        complete: whether a line that is no record is an error; otherwise it is passed over, so that
            a run goes on.

    Raises:
        LsfdError: such a line is there, if ``complete``.
    """
    if not path.exists():
        return []
    records: list[Record] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        record = _parsed(line)
        if record is not None:
            records.append(record)
        elif complete and number < len(lines):  # Behind the last line's end there is nothing.
            raise LsfdError(
                f"{path} is damaged: line {number} is no record; remove the lines that lsfd train "
                "did not write"
            )
    return records


def _parsed(line: str) -> Record | None:
    """Return the record of a line; None: it is none, or not whole."""
    try:
        record = json.loads(line)
    except (RecursionError, ValueError):
        return None
    return _with_infinity(record) if _is_whole(record) else None


def _is_whole(record: Any) -> bool:
    """Return whether a line's value is a record with all that is read of it."""
    if not isinstance(record, dict) or type(record.get("iteration", 0)) is not int:
        return False
    if not all(isinstance(record.get(name, ""), str) for name in ("kind", "set", "data")):
        return False
    images = record.get("images", {})
    numbers = [record.get(name, {}) for name in ("losses", "scores")]
    numbers += images.values() if isinstance(images, dict) else [images]
    return all(name in record for name in _NEEDED.get(str(record.get("kind")), ("kind",))) and all(
        isinstance(part, dict) and all(map(_is_number, part.values())) for part in numbers
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max  # JSON's integers may be too large for a float.
    return isinstance(value, float) or value in _INFINITY


def _with_infinity(record: Record) -> Record:
    """Return a record with the numbers that :func:`strict` made strings of."""
    images = record.get("images", {}).values()
    for part in (record.get("scores", {}), record.get("losses", {}), *images):
        for name, value in part.items():
            part[name] = float(value) if value in _INFINITY else value
    return record


def forget_after(path: Path, iteration: int) -> None:
    """Drop the records of iterations that a resume from ``iteration`` is going to repeat."""
    kept = [record for record in read_records(path) if record.get("iteration", 0) <= iteration]
    write_text(path, "".join(json.dumps(strict(record)) + "\n" for record in kept))


def strict(value: Any) -> Any:
    """Return plain data as strict JSON may hold it: a float that is not finite as a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, list | tuple) else value
