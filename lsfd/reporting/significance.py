"""Whether one method is better than another, seen over seeds and images at once.

A mean over a set hides that five images, or three seeds, may say little. Here every seed and every
image counts as a sample of those that could have been: both are drawn again and again, with
replacement (the bootstrap of Efron, Ann. Statist. 7, 1979, over two crossed factors), and the
middle 95 % of the mean differences are the interval. Differences are paired: same seed, same image.
With three seeds their part of it is a rough guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lsfd.reporting.tables import Cell, markdown_table

CONFIDENCE = 0.95
DRAWS = 10_000

ImageScores = Mapping[int, Mapping[str, float]]
"""Seed -> image -> PSNR in dB."""


@dataclass(frozen=True)
class Advantage:
    """How much better than another a method is on one set, in dB.

    Attributes:
        mean: over seeds and images.
        low: lower end of the interval.
        high: its upper end.
        images: of how many images the mean over the seeds is better, 0..1.
    """

    mean: float
    low: float
    high: float
    images: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        mark = "" if self.is_certain else " ?"
        ends = f"{self.low:+.3f} to {self.high:+.3f}"
        return f"{self.mean:+.3f} ({ends}), {100 * self.images:.0f} %{mark}"


def advantage(method: ImageScores, other: ImageScores, draws: int = DRAWS) -> Advantage | None:
    """Compare two methods on the seeds and images that both have.

    Images that are infinitely well done by one of them are left out.

    Args:
        method: its scores.
        other: those of the other.
        draws: of the bootstrap, which is the same each time.

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
    generator = np.random.default_rng(0)
    by_seed, by_image = (
        generator.multinomial(count, np.full(count, 1 / count), size=draws) / count
        for count in differences.shape
    )
    means = ((by_seed @ differences) * by_image).sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    better = float((differences.mean(0) > 0).mean())
    return Advantage(float(differences.mean()), float(low), float(high), better)


def advantage_table(scores: Mapping[str, Mapping[str, ImageScores]], other: str) -> str | None:
    """Return a Markdown table of how much better each method is than one of them.

    Args:
        scores: method -> set -> scores.
        other: the method that all are compared with.

    Returns:
        None if nothing can be compared.
    """
    theirs = scores.get(other, {})
    rows: list[list[Cell]] = []
    for method, its in scores.items():
        if method != other:
            found = [advantage(its.get(name, {}), theirs[name]) for name in theirs]
            rows.append([method, *(None if each is None else str(each) for each in found)])
    if not any(cell is not None for row in rows for cell in row[1:]):
        return None
    return markdown_table([f"over {other}", *theirs], rows)
