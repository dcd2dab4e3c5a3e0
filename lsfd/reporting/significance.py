"""Whether one method is better than another, seen over seeds and images at once.

A mean over a set hides that five images, or three seeds, may say little. Here every seed and every
image counts as a sample of those that could have been, in a two-way analysis of variance of the
differences, which are paired: same seed, same image. The variance of their mean is
(MS_seeds + MS_images - MS_rest) / (seeds * images), with the degrees of freedom of Satterthwaite
(Biometrics Bulletin 2, 1946), and Student's t for them gives the interval. Simulated with three
seeds, the 95 % interval holds the true mean in 92 to 97 % of the cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from lsfd.reporting.tables import Cell, fewer_seeds, markdown_table

CONFIDENCE = 0.95

FloatArray = npt.NDArray[np.float64]
ImageScores = Mapping[int, Mapping[str, float]]
"""Seed -> image -> PSNR in dB."""


@dataclass(frozen=True)
class Advantage:
    """How much better than another a method is on one set, in dB.

    Attributes:
        mean: over seeds and images.
        half_width: half of the 95 % interval of the mean; None with fewer than two seeds or images.
        images: of how many images the mean over the seeds is better, 0..1.
        seeds: how many both have.
    """

    mean: float
    half_width: float | None
    images: float
    seeds: int

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.half_width is not None and abs(self.mean) > self.half_width

    def __str__(self) -> str:
        mark = "" if self.is_certain else " ?"
        half = "" if self.half_width is None else f" ± {self.half_width:.3f}"
        return f"{self.mean:+.3f}{half}, {100 * self.images:.0f} %{mark}"


def advantage(method: ImageScores, other: ImageScores) -> Advantage | None:
    """Compare two methods on the seeds and images that both have.

    Images that are infinitely well done by one of them are left out.

    Args:
        method: its scores.
        other: those of the other.

    Returns:
        None without a common seed and image.
    """
    seeds = sorted(method.keys() & other.keys())
    tables = [method[seed] for seed in seeds] + [other[seed] for seed in seeds]
    images = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    differences = np.array(
        [[method[seed][image] - other[seed][image] for image in images] for seed in seeds]
    ).reshape(len(seeds), len(images))
    differences = differences[:, np.isfinite(differences).all(0)]
    if not differences.size:
        return None
    better = float((differences.mean(0) > 0).mean())
    return Advantage(float(differences.mean()), _half_width(differences), better, len(seeds))


def _half_width(differences: FloatArray) -> float | None:
    """Return half of the interval of the mean over rows (seeds) and columns (images)."""
    rows, columns = (count - 1 for count in differences.shape)
    if not rows or not columns:
        return None
    mean = differences.mean()
    by_row, by_column = differences.mean(1) - mean, differences.mean(0) - mean
    rest = differences - mean - by_row[:, None] - by_column
    of_rows = (columns + 1) * (by_row**2).sum() / rows
    of_columns = (rows + 1) * (by_column**2).sum() / columns
    of_rest = (rest**2).sum() / (rows * columns)
    # Chance may make the rest larger than one of the two; the other alone is then the safer guess.
    variance, freedom = max((of_rows, rows), (of_columns, columns))
    if of_rows + of_columns - of_rest > variance:
        variance = of_rows + of_columns - of_rest
        parts = of_rows**2 / rows + of_columns**2 / columns + of_rest**2 / (rows * columns)
        freedom = max(variance**2 / parts, min(rows, columns))
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    return float(quantile * math.sqrt(variance / differences.size))


def advantage_table(
    scores: Mapping[str, Mapping[str, ImageScores]], other: str, seeds: int
) -> str | None:
    """Return a Markdown table of how much better each method is than one of them.

    What rests on fewer seeds than others have says so.

    Args:
        scores: method -> set -> scores.
        other: the method that all are compared with.
        seeds: how many the comparison has.

    Returns:
        None if nothing can be compared.
    """
    theirs = scores.get(other, {})
    rows: list[list[Cell]] = []
    for method, its in scores.items():
        if method != other:
            found = [advantage(its.get(name, {}), theirs[name]) for name in theirs]
            rows.append([method, *(_text(each, seeds) for each in found)])
    if not any(cell is not None for row in rows for cell in row[1:]):
        return None
    return markdown_table([f"over {other}", *theirs], rows)


def _text(found: Advantage | None, seeds: int) -> str | None:
    return None if found is None else f"{found}{fewer_seeds(found.seeds, seeds)}"
