"""The numbers behind a report's charts, as JSON values for the page's script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lsfd.reporting.report_contents import Curves, Report
from lsfd.reporting.series import moving_mean, settled_range, smoothing_window

_WIDE = 10.0
"""From this ratio of greatest to least on, losses are drawn on a logarithmic axis."""
_MOST_POINTS = 1000
_LEAST_SPAN = 0.3
"""Decibels beside the runs' scores in which a teacher's or bicubic's line is drawn in any case."""


def loss_panels(report: Report) -> list[dict[str, Any]]:
    """Return one panel for each named loss, with every run that has it."""
    names = dict.fromkeys(
        name for run in report.runs for name, points in run.losses.items() if points
    )
    return [_loss_panel(name, report.runs) for name in names]


def score_panels(report: Report) -> list[dict[str, Any]]:
    """Return one panel of PSNR-Y for each validation set, with what no training changes beside."""
    names = dict.fromkeys(
        name for run in report.runs for name, points in run.scores.items() if points
    )
    return [_score_panel(name, report) for name in names]


def latency_points(report: Report) -> list[dict[str, Any]]:
    """Return what was timed: where it stands in PSNR against latency, for each set."""
    return [
        {
            "name": model.name,
            "role": model.role,
            "run": _run_index(model.name, report.runs),
            "milliseconds": model.latency * 1000,
            "psnr": {name: psnr for name, (psnr, _) in model.scores.items() if math.isfinite(psnr)},
        }
        for model in report.models
        if model.latency is not None
    ]


def _loss_panel(name: str, runs: Sequence[Curves]) -> dict[str, Any]:
    lines = [
        _line(index, run.losses[name]) for index, run in enumerate(runs) if run.losses.get(name)
    ]
    values = [value for line in lines for value in line["y"]]
    positive = [value for value in values if value > 0]
    wide = bool(positive) and max(positive) > _WIDE * min(positive)
    shown = positive if wide else values  # A logarithmic axis has no place for zero.
    return {
        "title": name,
        "kind": "loss",
        "log": wide,
        "range": [min(shown), max(shown)],
        "lines": lines,
        "references": [],
    }


def _score_panel(name: str, report: Report) -> dict[str, Any]:
    curves = {
        index: run.scores[name] for index, run in enumerate(report.runs) if run.scores.get(name)
    }
    # The steep start may leave the panel, and so may what would squeeze the end, where runs differ.
    low, high = settled_range(curves.values())
    span = max(high - low, _LEAST_SPAN)
    references = [
        (model.name, model.scores[name][0])
        for model in report.models
        if model.role != "student" and math.isfinite(model.scores.get(name, (math.inf, 0))[0])
    ]
    near = [value for _, value in references if low - span <= value <= high + span]
    return {
        "title": name,
        "kind": "psnr",
        "log": False,
        "range": [min([low, *near]), max([high, *near])],
        "lines": [_line(index, points, smooth=False) for index, points in curves.items()],
        "references": [
            {"name": reference, "value": value, "side": _side(value, low - span, high + span)}
            for reference, value in references
        ],
    }


def _side(value: float, low: float, high: float) -> str:
    """Return on which side of a panel a value lies: ``above``, ``below``, or "" inside."""
    return "above" if value > high else "below" if value < low else ""


def _line(run: int, points: Mapping[int, float], *, smooth: bool = True) -> dict[str, Any]:
    """Return a run's curve; ``smooth`` is its moving mean where it is long enough for one."""
    values = list(points.values())
    window = smoothing_window(len(values)) if smooth else 1
    means = moving_mean(np.array(values), window) if window > 1 else None
    kept = _thinned(len(values))
    iterations = list(points)
    return {
        "run": run,
        "x": [iterations[index] for index in kept],
        "y": [_short(values[index]) for index in kept],
        "smooth": None if means is None else [_short(means[index]) for index in kept],
    }


def _thinned(count: int) -> Sequence[int]:
    """Return which points are drawn: a chart has no room for more than some hundreds."""
    step = -(-count // _MOST_POINTS)
    return range((count - 1) % step, count, step) if count else []  # The last one is among them.


def _run_index(name: str, runs: Sequence[Curves]) -> int | None:
    return next((index for index, run in enumerate(runs) if run.name == name), None)


def _short(value: float) -> float:
    """Return six digits of a number: more would only make the file larger."""
    return float(f"{value:.6g}")
