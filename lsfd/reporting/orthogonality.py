"""Do the gains of distillation and of another technique add up? 2 x 2 designs, table and picture.

With P a PSNR, X the other technique, and KD distillation:

    gain(X) = P(X + KD) - P(X),      gain() = P(base + KD) - P(base)

    ortho(X) = gain(X) / gain()

1: the gains add up; 0: with X, distillation gains nothing; below 0: they are in conflict. That the
gains of techniques are orthogonal is the claim of arXiv 2009.04120, of which only the abstract was
at hand: this measure of it is ours.

Gains are differences within a seed. The interval of the ratio is Fieller's, for the quotient of two
paired means: exact for normal differences, however few. Where the gain in the denominator is within
noise (its own interval includes zero), that quotient may be anything, and ortho(X) is undefined.
The difference gain(X) - gain() has an interval in any case.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from lsfd.errors import LsfdError
from lsfd.reporting.comparison import CONFIDENCE, Gain, gain
from lsfd.reporting.style import ACCENT, MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import Cell, markdown_table

BASE = "base"
KD = "+KD"
"""What the name of a cell with distillation ends in."""

SHOWN = (-1.5, 3.5)
"""Wide intervals of the ratio run out of the picture; the table has their ends."""

Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Cell (``base``, ``base+KD``, ``pruned`` ...) -> set -> seed -> PSNR-Y in dB."""


@dataclass(frozen=True)
class Ratio:
    """A quotient of two means with its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_means(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio | None:
    """Return mean(numerators) / mean(denominators) with Fieller's interval, values paired.

    None where it is undefined: fewer than two pairs, or the denominators' mean is within noise.
    """
    count = len(numerators)
    if count < 2:
        return None
    top, bottom = float(np.mean(numerators)), float(np.mean(denominators))
    covariance = np.cov(numerators, denominators) / count
    square = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) ** 2
    # Quotients q for which the mean of (numerator - q denominator) is within noise:
    # a q^2 - 2 b q + c <= 0.
    a = bottom**2 - square * float(covariance[1, 1])
    b = top * bottom - square * float(covariance[0, 1])
    c = top**2 - square * float(covariance[0, 0])
    if a <= 0:
        return None
    half = math.sqrt(max(b * b - a * c, 0.0))
    return Ratio(top / bottom, (b - half) / a, (b + half) / a)


@dataclass(frozen=True)
class Orthogonality:
    """The 2 x 2 design of one technique on one set.

    Attributes:
        technique: X.
        cost: P(X) - P(base).
        base_gain: gain().
        gain: gain(X).
        interaction: gain(X) - gain().
        ratio: ortho(X); None: undefined.
    """

    technique: str
    cost: Gain
    base_gain: Gain
    gain: Gain
    interaction: Gain
    ratio: Ratio | None


def orthogonality(scores: Scores, technique: str, set_name: str) -> Orthogonality:
    """Return a technique's design on one set.

    Raises:
        LsfdError: a cell lacks the score of a seed that another has.
    """
    cells = (BASE, BASE + KD, technique, technique + KD)
    base, base_kd, alone, both = found = [scores.get(cell, {}).get(set_name, {}) for cell in cells]
    for seed in sorted({seed for by_seed in found for seed in by_seed}):
        for cell, by_seed in zip(cells, found, strict=True):
            if seed not in by_seed:
                raise LsfdError(
                    f"{cell} has no score on {set_name} with seed {seed}, which other cells have; "
                    "leave that seed out, or train the cell anew"
                )
    base_gain, with_technique = _gain(base_kd, base), _gain(both, alone)
    return Orthogonality(
        technique=technique,
        cost=_gain(alone, base),
        base_gain=base_gain,
        gain=with_technique,
        interaction=_gain(with_technique.by_seed, base_gain.by_seed),
        ratio=ratio_of_means(
            list(with_technique.by_seed.values()), list(base_gain.by_seed.values())
        ),
    )


def orthogonality_table(scores: Scores, techniques: Sequence[str]) -> str:
    """Return a Markdown table, a row for each technique and set."""
    header = ["set", "X", "P(X) - P(base)", "gain of KD, base", "gain of KD, X", "difference",
              "ortho(X)", "95 %"]  # fmt: skip
    rows: list[list[Cell]] = []
    for set_name in scores[BASE]:
        for technique in techniques:
            found = orthogonality(scores, technique, set_name)
            gains = (found.cost, found.base_gain, found.gain, found.interaction)
            rows.append([set_name, technique, *map(str, gains), *_ratio_texts(found.ratio)])
    return markdown_table(header, rows)


def save_orthogonality(
    scores: Scores, techniques: Sequence[str], path: str | os.PathLike[str], title: str
) -> None:
    """Save a picture: what distillation gains with each technique, and which share of it that is.

    A dot is one seed, a bar the 95 % interval of the mean, a line the base. Strong colour: the
    interval excludes zero.

    Raises:
        LsfdError: the file cannot be written.
    """
    sets = list(scores[BASE])
    with saved_figure(path, 1.6 + 0.75 * len(sets) * (1 + 0.3 * len(techniques)), title) as figure:
        panels = figure.subplots(len(sets), 2, squeeze=False, sharex="col")
        ratios = list(SHOWN)
        for (left, right), set_name in zip(panels, sets, strict=True):
            designs = [orthogonality(scores, technique, set_name) for technique in techniques]
            _draw_gains(left, designs, set_name)
            _draw_ratios(right, designs, set_name)
            ratios += [design.ratio.value for design in designs if design.ratio is not None]
        low, high = panels[-1][1].get_xlim()
        panels[-1][1].set_xlim(max(low, min(ratios) - 0.5), min(high, max(ratios) + 0.5))
        panels[-1][0].set_xlabel("gain by distillation (dB)")
        panels[-1][1].set_xlabel("ortho(X): 0 redundant, 1 additive")


def _draw_gains(axes: Axes, designs: Sequence[Orthogonality], set_name: str) -> None:
    axes.set_title(f"{set_name}: what distillation gains")
    axes.axvline(0, color=MUTED, linewidth=1)
    gains = [designs[0].base_gain, *(design.gain for design in designs)]
    names = [BASE, *(design.technique for design in designs)]
    for row, found in enumerate(gains):
        color = (PALETTE[0] if found.mean > 0 else ACCENT) if found.is_certain else MUTED
        values = list(found.by_seed.values())
        axes.plot(values, [row] * len(values), "o", color=color, markersize=3, alpha=0.5)
        half = found.half_width
        axes.errorbar(
            found.mean, row, xerr=half, fmt="|", color=color, capsize=3, markersize=9, linewidth=1.5
        )
    axes.axvline(gains[0].mean, color=MUTED, linewidth=1, linestyle=":")
    _name_rows(axes, names)


def _draw_ratios(axes: Axes, designs: Sequence[Orthogonality], set_name: str) -> None:
    axes.set_title(f"{set_name}: share of the base's gain")
    for position, style in ((0, "-"), (1, ":")):
        axes.axvline(position, color=MUTED, linewidth=1, linestyle=style)
    for row, design in enumerate(designs):
        ratio = design.ratio
        if ratio is None:
            axes.text(0.5, row, "undefined", ha="center", va="center", color=MUTED,
                      backgroundcolor="white")  # fmt: skip
            continue
        color = PALETTE[0] if ratio.low > 0 else ACCENT if ratio.high < 0 else MUTED
        reach = [[ratio.value - ratio.low], [ratio.high - ratio.value]]
        axes.errorbar(ratio.value, row, xerr=reach, fmt="D", color=color, capsize=3, markersize=5)
    _name_rows(axes, [design.technique for design in designs])


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _gain(scores: Mapping[int, float], baseline: Mapping[int, float]) -> Gain:
    found = gain(scores, baseline)
    assert found is not None  # orthogonality() compares the seeds.
    return found


def _ratio_texts(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return ["undefined", "the base's gain is within noise"]
    return [f"{ratio.value:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}"]
