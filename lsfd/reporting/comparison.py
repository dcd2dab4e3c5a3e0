"""Methods side by side over several seeds: a table and a picture of the gains, with intervals."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from lsfd.reporting.latex import latex_table
from lsfd.reporting.series import Points
from lsfd.reporting.significance import ImageScores
from lsfd.reporting.style import ACCENT, MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import Cell, fewer_seeds, markdown_table

CONFIDENCE = 0.95
_DIGITS = {"s/step": 3, "minutes": 1, "memory (GiB)": 2}


@dataclass(frozen=True)
class MethodResult:
    """What one method reached.

    Attributes:
        name: of the method.
        scores: set name -> seed -> PSNR-Y in dB.
        seconds: of a training step; None if unknown.
        memory: of a process that trains, in bytes; None if unknown.
        images: set name -> seed -> image -> PSNR-Y in dB; older runs have none.
        ssim: set name -> seed -> SSIM-Y; empty where it was not asked for.
        steps: of its training; None if unknown.
        losses: seed -> iteration -> loss against the ground truth.
        is_taught: whether anything but the ground truth teaches it.
    """

    name: str
    scores: Mapping[str, Mapping[int, float]]
    seconds: float | None = None
    memory: int | None = None
    images: Mapping[str, ImageScores] = field(default_factory=dict)
    ssim: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    steps: int | None = None
    losses: Mapping[int, Points] = field(default_factory=dict)
    is_taught: bool = True

    @property
    def training_seconds(self) -> float | None:
        """What the training takes: its steps at the cost of one."""
        if self.seconds is None or self.steps is None:
            return None
        return self.steps * self.seconds


@dataclass(frozen=True)
class Gain:
    """How much better than the baseline a method is on one set, in dB.

    Attributes:
        by_seed: the difference for each seed that both have.
        mean: their mean.
        half_width: half of the 95 % interval of the mean (Student's t over paired differences);
            None with fewer than two seeds.
    """

    by_seed: Mapping[int, float]
    mean: float
    half_width: float | None

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.half_width is not None and abs(self.mean) > self.half_width

    def __str__(self) -> str:
        half = "" if self.half_width is None else f" ± {self.half_width:.3f}"
        return f"{self.mean:+.3f}{half}"


def gain(method: Mapping[int, float], baseline: Mapping[int, float]) -> Gain | None:
    """Return the paired difference of two methods' scores by seed; None without a common seed."""
    by_seed = {seed: method[seed] - baseline[seed] for seed in sorted(method) if seed in baseline}
    if not by_seed:
        return None
    values = np.array(list(by_seed.values()))
    half = None
    if len(values) > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
        half = float(quantile * values.std(ddof=1) / math.sqrt(len(values)))
    return Gain(by_seed, float(values.mean()), half)


def comparison_table(results: Sequence[MethodResult], baseline: str) -> str:
    """Return a Markdown table: PSNR ± standard deviation / SSIM, gain with its interval, costs.

    What rests on fewer seeds than the comparison has says so; a seed may have no finite score.

    Args:
        results: one row each.
        baseline: name of the method that gains are measured against.
    """
    columns = _columns(results, baseline)
    names = [result.name for result in results]
    rows = list(zip(names, *columns.values(), strict=True))
    digits = {number: _DIGITS.get(head, 2) for number, head in enumerate(columns, 1)}
    return markdown_table(["method", *columns], rows, digits=digits)


def comparison_latex(results: Sequence[MethodResult], baseline: str) -> str:
    """Return the table of :func:`comparison_table` for a paper, as a ``tabular``."""
    names = [result.name for result in results]
    return latex_table("method", names, _columns(results, baseline), _DIGITS)


def _columns(results: Sequence[MethodResult], baseline: str) -> dict[str, list[Cell]]:
    """Return the cells of the table behind the methods' names, by their heads."""
    reference = {result.name: result for result in results}.get(baseline)
    names = _sets(results)
    seeds = count_seeds(results)
    columns: dict[str, list[Cell]] = {}
    for name in names:
        columns[name] = [_scores_text(result, name, seeds) for result in results]
        columns[f"gain ({name})"] = [
            None if reference is None else gain_text(result, reference, name, seeds)
            for result in results
        ]
    columns["s/step"] = [result.seconds for result in results]
    whole = [result.training_seconds for result in results]
    columns["minutes"] = [None if seconds is None else seconds / 60 for seconds in whole]
    memory = [result.memory for result in results]
    columns["memory (GiB)"] = [None if size is None else size / 2**30 for size in memory]
    return columns


def _sets(results: Sequence[MethodResult]) -> list[str]:
    """Return the names of all sets; a method whose results are not finite has no scores."""
    return list(dict.fromkeys(name for result in results for name in result.scores))


def count_seeds(results: Sequence[MethodResult]) -> int:
    """Return how many seeds the comparison has; all of them have losses, not all have scores."""
    by_seed = [each for result in results for each in (*result.scores.values(), result.losses)]
    return len({seed for each in by_seed for seed in each})


def _scores_text(result: MethodResult, name: str, seeds: int) -> str | None:
    values = list(result.scores.get(name, {}).values())
    if not values:
        return None
    text = f"{np.mean(values):.3f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.3f}"
    ssim = list(result.ssim.get(name, {}).values())
    return (f"{text} / {np.mean(ssim):.4f}" if ssim else text) + fewer_seeds(len(values), seeds)


def gain_text(result: MethodResult, reference: MethodResult, name: str, seeds: int) -> str | None:
    """Return what a table's cell says of a method's gain over another on a set."""
    if result is reference:
        return None
    found = gain(result.scores.get(name, {}), reference.scores.get(name, {}))
    return None if found is None else f"{found}{fewer_seeds(len(found.by_seed), seeds)}"


def save_gains(
    results: Sequence[MethodResult], baseline: str, path: str | os.PathLike[str], title: str
) -> None:
    """Save a picture of every method's gain over the baseline, a panel for each set.

    A dot is one seed, a bar the 95 % interval of the mean; methods are sorted by their mean gain
    over all sets, and those that lack a set come last. Strong colour: the interval excludes zero.

    Raises:
        LsfdError: the file cannot be written.
    """
    reference = {result.name: result for result in results}[baseline]
    others = [result for result in results if result is not reference]
    sets = list(reference.scores)
    gains = {
        result.name: {
            name: gain(result.scores.get(name, {}), reference.scores[name]) for name in sets
        }
        for result in others
    }

    def rank(method: str) -> tuple[bool, float]:
        means = [found.mean for found in gains[method].values() if found]
        # Without its hardest set a method would have too good a mean.
        return len(means) == len(sets), float(np.mean(means or [0]))

    order = sorted(gains, key=rank)
    with saved_figure(path, 1.4 + 0.3 * max(len(order), 1), title) as figure:
        panels = figure.subplots(1, max(len(sets), 1), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, sets, strict=False):
            axes.set_title(name)
            axes.axvline(0, color=MUTED, linewidth=1)
            axes.set_xlabel(f"gain over {baseline} (dB)")
            axes.set_yticks(range(len(order)), order)
            axes.set_ylim(-0.6, len(order) - 0.4)
            for row, method in enumerate(order):
                found = gains[method][name]
                if found is None:
                    continue
                color = MUTED
                if found.is_certain:
                    color = PALETTE[0] if found.mean > 0 else ACCENT
                seeds = list(found.by_seed.values())
                axes.plot(seeds, [row] * len(seeds), "o", color=color, markersize=3, alpha=0.5)
                axes.errorbar(
                    found.mean, row, xerr=found.half_width, fmt="|", color=color, capsize=3,
                    markersize=9, linewidth=1.5,
                )  # fmt: skip
