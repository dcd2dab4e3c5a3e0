"""Training curves: one run in detail, or several runs compared."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lsfd.reporting.series import (
    Points,
    Records,
    losses_of,
    moving_mean,
    rates_of,
    scores_of,
    settled_range,
    smoothing_window,
)
from lsfd.reporting.style import ACCENT, MUTED, PALETTE, saved_figure

_AXIS_NAMES = {"psnr": "PSNR-Y (dB)", "ssim": "SSIM-Y"}


def save_run_curves(records: Records, path: str | os.PathLike[str], title: str) -> None:
    """Save the curves of one run: all losses, PSNR-Y of each validation set, learning rate.

    Losses are on a logarithmic axis (values <= 0 are left out there), faint as they were and
    strong as a moving mean over 1/20 of the run; the best validation score is starred. A panel
    without records says so, so that the picture can be drawn from the first minute on.

    Raises:
        LsfdError: the file cannot be written.
    """
    # A figure refers to itself, so that the 10 MB of the picture before wait for Python's next full
    # collection, which in a training hardly ever comes.
    gc.collect()
    scores = scores_of(records, "psnr")
    sets = list(scores) or [""]
    heights = [2.6, *[1.6] * len(sets), 0.8]
    with saved_figure(path, sum(heights) + 0.9, title) as figure:
        panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        _draw_losses(panels[0], losses_of(records))
        for axes, name in zip(panels[1:-1], sets, strict=True):
            _draw_validation(axes, name, scores.get(name, {}))
        _draw_rate(panels[-1], rates_of(records))


def save_comparison_curves(
    runs: Mapping[str, Records],
    path: str | os.PathLike[str],
    metric: str = "psnr",
    reference: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Save one validation score of several runs, one panel for each set.

    The vertical axis covers what the runs reach after the first fifth of their iterations, where
    they differ by hundredths, not the steep start.

    Args:
        runs: name of the run -> its records.
        path: the PNG to write.
        metric: key in ``scores``.
        reference: name -> set -> score, for example of bicubic and of the teacher: dashed lines.
            One that is so far from the runs that it would squeeze them is noted in a corner of the
            panel, with its value and an arrow to the side where it lies.

    Raises:
        LsfdError: the file cannot be written.
    """
    by_run = {name: scores_of(records, metric) for name, records in runs.items()}
    sets = list(dict.fromkeys(name for scores in by_run.values() for name in scores)) or [""]
    columns = 2 if len(sets) == 4 else min(len(sets), 3)
    rows = math.ceil(len(sets) / columns)
    with saved_figure(path, (4.4 if columns < 3 else 3.4) * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, name in zip(panels, sets, strict=False):
            curves = {run: scores.get(name, {}) for run, scores in by_run.items()}
            lines = {line: s[name] for line, s in (reference or {}).items() if name in s}
            axes.set_title(name)
            _draw_comparison(axes, metric, curves, lines)
        for axes in panels[::columns]:
            axes.set_ylabel(_AXIS_NAMES.get(metric, metric))
        for axes in panels[len(sets) :]:
            axes.remove()
        _legend_below(figure)


def _draw_losses(axes: Axes, losses: Mapping[str, Points]) -> None:
    axes.set_title("Losses")
    # A logarithmic axis has no place for zero; a loss of weight zero is nothing else.
    positive = {n: {i: v for i, v in points.items() if v > 0} for n, points in losses.items()}
    positive = {name: points for name, points in positive.items() if points}
    if not positive:
        _note_empty(axes, "no losses yet")
        return
    for index, (name, points) in enumerate(positive.items()):
        style = _line_style(index)
        iterations, values = list(points), np.array(list(points.values()))
        window = smoothing_window(len(values))
        if window > 1:
            axes.plot(iterations, values, color=style["color"], linewidth=0.6, alpha=0.35)
        means = moving_mean(values, window)
        axes.plot(iterations, means, label=name, marker=_marker(points), **style)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    # 1, 2, 5 between one decade and three; fewer labels on a wider axis, more on a narrower one.
    subs = [1] if decades > 3 else [1, 2, 5] if decades > 1 else list(range(1, 10))
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    _legend_beside(axes)


def _draw_validation(axes: Axes, name: str, points: Points) -> None:
    axes.set_title(f"{name} PSNR-Y (dB)".lstrip())
    if not points:
        _note_empty(axes, "no validation yet")
        return
    best = max(points, key=lambda iteration: points[iteration])
    axes.plot(list(points), list(points.values()), color=PALETTE[0], marker=".", markersize=4)
    label = f"best {points[best]:.2f}\nat {best:,}"
    axes.plot([best], [points[best]], "*", color=ACCENT, markersize=11, label=label)
    _legend_beside(axes)


def _draw_rate(axes: Axes, points: Points) -> None:
    axes.set_title("Learning rate")
    _count_iterations(axes)
    if not points:
        _note_empty(axes, "no learning rate yet")
        return
    axes.plot(list(points), list(points.values()), color=PALETTE[0], marker=_marker(points))
    highest = max(points.values())
    axes.set_ylim(0, 1.15 * highest or 1)
    axes.set_yticks([0, highest])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))


def _draw_comparison(
    axes: Axes,
    metric: str,
    curves: Mapping[str, Points],
    references: Mapping[str, float],
) -> None:
    _count_iterations(axes)
    if not any(curves.values()):
        _note_empty(axes, "no validation yet")
        return
    for index, (run, points) in enumerate(curves.items()):
        style = _line_style(index)
        axes.plot(list(points), list(points.values()), label=run, marker=_marker(points), **style)
    low, high = settled_range(curves.values())
    span = max(high - low, 1e-3)
    near = {n: v for n, v in references.items() if low - span <= v <= high + span}
    for index, (name, value) in enumerate(references.items()):
        if name in near:
            dashes = (0, (6 - 2 * (index % 3), 2))
            axes.axhline(value, label=name, color=MUTED, linewidth=1.1, linestyle=dashes)
    digits = 2 if metric == "psnr" else 4
    below = [f"{n} {v:.{digits}f} ↓" for n, v in references.items() if v < low - span]
    above = [f"↑ {n} {v:.{digits}f}" for n, v in references.items() if v > high + span]
    bottom, top = min([low, *near.values()]), max([high, *near.values()])
    # Room for a line of text is 8 % of the height; curves rise, so that its corner stays free.
    line = 0.08 * max(top - bottom, 1e-3)
    axes.set_ylim(bottom - line * (1 + len(below)), top + line * (1 + len(above)))
    style = {"transform": axes.transAxes, "fontsize": 8, "color": MUTED}
    axes.text(0.98, 0.03, "\n".join(below), ha="right", va="bottom", **style)
    axes.text(0.03, 0.97, "\n".join(above), ha="left", va="top", **style)


def _line_style(index: int) -> dict[str, Any]:
    """Return the look of the index-th line: first another colour, then another dash."""
    cycle, colour = divmod(index, len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": ("-", "--", "-.", ":")[cycle % 4]}


def _marker(points: Points) -> str:
    """Return dots where a line alone would be hard to see or not there at all."""
    return "." if len(points) < 10 else ""


def _count_iterations(axes: Axes) -> None:
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _legend_beside(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05))


def _legend_below(figure: Figure) -> None:
    """Add one legend for all panels, in as many columns as their names leave room for."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    widths = [len(label) + 8 for label in handles]  # In characters, of which a line holds 110.
    columns = len(handles) if sum(widths) <= 110 else max(1, 110 // max(widths))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def _note_empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set_yticks([])
