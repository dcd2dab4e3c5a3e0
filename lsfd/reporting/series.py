"""The records of ``metrics.jsonl`` as series of numbers::

    {"kind": "train", "iteration": 100, "losses": {"l_pix": 0.03}, "lr": 1e-4, ...}
    {"kind": "val", "iteration": 1000, "set": "Set5", "scores": {"psnr": 30.1, "ssim": 0.87}}

Non-finite values are left out. Where an iteration occurs twice (a run that was resumed from an
older checkpoint) the later record counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = Sequence[Mapping[str, Any]]
Points = dict[int, float]
"""Iteration -> value, in order of iteration."""


def losses_of(records: Records) -> dict[str, Points]:
    """Return every named loss of a run."""
    return _series((name, r, v) for r in _train(records) for name, v in r.get("losses", {}).items())


def rates_of(records: Records) -> Points:
    """Return a run's learning rate."""
    return _series(("lr", r, r.get("lr")) for r in _train(records)).get("lr", {})


def scores_of(records: Records, metric: str) -> dict[str, Points]:
    """Return one validation score of a run for each set."""
    validations = [record for record in records if record.get("kind") == "val"]
    return _series((r["set"], r, r.get("scores", {}).get(metric)) for r in validations)


def smoothing_window(count: int) -> int:
    """Return over how many of ``count`` values a curve is smoothed: 1/20 of a run."""
    return max(1, count // 20)


def moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the centred mean over ``window`` values, over fewer of them near the ends."""
    kernel = np.ones(window)
    counts = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / counts


def settled_range(curves: Iterable[Points]) -> tuple[float, float]:
    """Return the least and the greatest value after the first fifth of each curve's iterations.

    There runs differ by hundredths; the steep start would squeeze that.
    """
    lasts = [(points, max(points, default=0)) for points in curves]
    values = [v for points, last in lasts for i, v in points.items() if i >= last / 5]
    return min(values), max(values)


def _train(records: Records) -> list[Mapping[str, Any]]:
    return [record for record in records if record.get("kind") == "train"]


def _series(triples: Iterable[tuple[str, Mapping[str, Any], Any]]) -> dict[str, Points]:
    """Collect (name, record, value) into name -> iteration -> value."""
    found: dict[str, Points] = {}
    for name, record, value in triples:
        if value is not None and math.isfinite(value):
            found.setdefault(name, {})[int(record["iteration"])] = float(value)
    return {name: dict(sorted(points.items())) for name, points in found.items()}
