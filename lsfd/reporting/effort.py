"""What methods reach for their effort: score against time, and the loss on the way."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lsfd.reporting.comparison import MethodResult
from lsfd.reporting.labels import name_points
from lsfd.reporting.series import Points, moving_mean, smoothing_window
from lsfd.reporting.style import ACCENT, MUTED, PALETTE, saved_figure

DECADE = 10
"""Times that differ by more than this factor stand on a logarithmic axis."""


def save_times(
    results: Sequence[MethodResult], baseline: str, path: str | os.PathLike[str], title: str
) -> None:
    """Save a picture of each method's score, the mean over the sets, against its training's time.

    Times are steps times the cost of a step. What learns without a teacher, for as many lengths as
    there are, is one line: above it a method is worth its time. The sets are those that the
    baseline has scores of; a method that lacks one, perhaps the hardest, is left out.

    Raises:
        LsfdError: the file cannot be written.
    """
    sets = list({result.name: result for result in results}[baseline].scores)
    points = [
        (result, seconds / 60, _mean_over(sets, result))
        for result in results
        if (seconds := result.training_seconds) and sets and result.scores.keys() >= set(sets)
    ]
    with saved_figure(path, _height(len(points)), title) as figure:
        axes = figure.subplots()
        axes.set_xlabel("minutes of training")
        axes.set_ylabel(f"PSNR-Y (dB), mean of {', '.join(sets)}")
        minutes = [x for _, x, _ in points]
        if minutes and max(minutes) > DECADE * min(minutes):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        alone = sorted((x, y) for result, x, y in points if not result.is_taught)
        if alone:
            axes.plot(*zip(*alone, strict=True), "o-", color=ACCENT, label="without a teacher")
            figure.legend(loc="outside lower left")  # Inside it may cover a point.
        taught = [(result.name, x, y) for result, x, y in points if result.is_taught]
        axes.plot([x for _, x, _ in taught], [y for *_, y in taught], "o", color=PALETTE[0])
        name_points(axes, [(result.name, x, y) for result, x, y in points])


def save_progress(
    results: Sequence[MethodResult], baseline: str, path: str | os.PathLike[str]
) -> None:
    """Save how the loss against the ground truth falls, as a percentage of the baseline's.

    Runs of one seed draw the same patches, so that the quotient is far smoother than the losses.

    Raises:
        LsfdError: the file cannot be written.
    """
    reference = {result.name: result for result in results}[baseline]
    title = f"Loss against the ground truth beside {baseline}'s"
    with saved_figure(path, _height(len(results)), title) as figure:
        axes = figure.subplots()
        axes.set_xlabel("iteration")
        axes.set_ylabel(f"% of {baseline}'s")
        axes.axhline(100, color=MUTED, linewidth=1)
        others = [result for result in results if result is not reference]
        curves = {result.name: relative_loss(result, reference) for result in others}
        curves = {name: points for name, points in curves.items() if points}
        for index, points in enumerate(curves.values()):
            color = PALETTE[index % len(PALETTE)]
            style = ("-", "--", ":")[index // len(PALETTE) % 3]
            axes.plot(list(points), list(points.values()), style, color=color, linewidth=1.2)
        axes.set_ylim(*_range_of_ends(curves.values()))
        name_points(axes, [(name, *list(points.items())[-1]) for name, points in curves.items()])


def relative_loss(method: MethodResult, baseline: MethodResult) -> Points:
    """Return a method's loss in % of the baseline's, iteration by iteration.

    It is the mean over the seeds that both have, smoothed over 1/20 of the run; a loss of zero has
    no percentage.
    """
    seeds = [seed for seed in method.losses if seed in baseline.losses]
    positive = {seed: {i for i, value in baseline.losses[seed].items() if value} for seed in seeds}
    common = [method.losses[seed].keys() & positive[seed] for seed in seeds]
    iterations = sorted(set.intersection(*common)) if common else []
    if not iterations:
        return {}
    ratios = [
        [method.losses[seed][i] / baseline.losses[seed][i] for i in iterations] for seed in seeds
    ]
    smooth = moving_mean(100 * np.mean(ratios, 0), smoothing_window(len(iterations)))
    return dict(zip(iterations, smooth.tolist(), strict=True))


def _range_of_ends(curves: Collection[Points]) -> tuple[float, float]:
    """Return limits in which their last quarters can be told apart; the rest may lie outside."""
    lasts = [(points, max(points, default=0)) for points in curves]
    shown = [y for points, last in lasts for x, y in points.items() if x >= 0.75 * last]
    low, high = min([100, *shown]), max([100, *shown])
    margin = max(0.1 * (high - low), 0.1)
    return low - margin, high + margin


def _height(names: int) -> float:
    """Return the inches that a picture needs for a column of so many names."""
    return max(4.2, 1 + 0.17 * names)


def _mean_over(sets: Sequence[str], result: MethodResult) -> float:
    return float(np.mean([np.mean(list(result.scores[name].values())) for name in sets]))
