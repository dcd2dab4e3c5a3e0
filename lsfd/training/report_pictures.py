"""The pictures of a report: which ones, which part of them, and all the ways to look at them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lsfd.evaluation.benchmark import BICUBIC, bicubic
from lsfd.evaluation.scores import SetScores
from lsfd.evaluation.sets import BenchmarkSet
from lsfd.reporting.pictures import Box, telling_box
from lsfd.reporting.report_contents import Picture, View
from lsfd.reporting.report_table import decibels
from lsfd.training.report_models import Contestant

Image = NDArray[np.uint8]

MOST_PIXELS = 20_000_000
"""Of all views of all pictures together: about 25 MB in the file."""
LARGEST, SMALLEST = 640, 160
"""Longest side of what is shown of a picture, in pixels, however many there are."""
TAIL = 99.5
"""Percentile that gets the brightest colour: one bright pixel would darken all others."""

GROUND_TRUTH = "ground truth"


@dataclass(frozen=True, eq=False)
class Excerpt:
    """What is shown of one picture.

    Attributes:
        source: name of its set.
        name: of the picture.
        box: which part of it, in pixels of the original: left, top, width, height.
        size: width and height of the whole original.
        lq: that part at low resolution.
        hr: that part of the original.
        results: the same of each contestant's result, by name.
        attention: maps on the low-resolution grid, by label.
    """

    source: str
    name: str
    box: Box
    size: tuple[int, int]
    lq: Image
    hr: Image
    results: dict[str, Image] = field(default_factory=dict)
    attention: dict[str, NDArray[np.floating]] = field(default_factory=dict)

    def keep(self, contestant: str, result: Image) -> None:
        """Keep the part of a contestant's result that is shown."""
        left, top, width, height = self.box
        self.results[contestant] = result[top : top + height, left : left + width].copy()


def choose(sets: Sequence[BenchmarkSet], count: int, found: Sequence[Contestant]) -> list[Excerpt]:
    """Return excerpts of ``count`` pictures, taken from the sets in turn.

    A picture larger than what there is room for is cut to where bicubic is farthest from the truth.

    Raises:
        LsfdError: a picture cannot be read.
    """
    numbers = [
        (number, each)
        for number in range(max((len(each) for each in sets), default=0))
        for each in sets
        if number < len(each)
    ][:count]
    # Results, their errors, the differences to teachers, the truth.
    views = 2 * len(found) + sum(each.role == "student" for each in found) + 1
    room = math.isqrt(MOST_PIXELS // max(1, views * len(numbers)))
    side = min(max(room, SMALLEST), LARGEST)
    multiple = math.lcm(*(each.multiple for each in found))
    return [
        _excerpt(each, replace(each, pairs=(each.pairs[number],)), side, multiple)
        for number, each in sorted(numbers, key=lambda item: sets.index(item[1]))
    ]


def _excerpt(whole: BenchmarkSet, single: BenchmarkSet, side: int, multiple: int) -> Excerpt:
    """Return the part of a set's one picture that is shown; all sizes are whole input pixels."""
    (name, lq, hr) = next(iter(single))
    step = whole.scale * multiple
    height, width = hr.shape[:2]
    left, top, shown_width, shown_height = 0, 0, width // step * step, height // step * step
    if max(height, width) > side:
        square = min(side, height, width)
        left, top, *_ = telling_box(bicubic(whole.scale)(lq), hr, square)
        left, top = left // step * step, top // step * step
        shown_width = shown_height = square // step * step
    low = [value // whole.scale for value in (left, top, shown_width, shown_height)]
    return Excerpt(
        whole.name,
        name,
        (left, top, shown_width, shown_height),
        (width, height),
        lq[low[1] : low[1] + low[3], low[0] : low[0] + low[2]].copy(),
        hr[top : top + shown_height, left : left + shown_width].copy(),
    )


def picture(
    excerpt: Excerpt, found: Sequence[Contestant], scores: Mapping[str, Sequence[SetScores]]
) -> Picture:
    """Return an excerpt with all its views: images, differences, attention."""
    students = [each for each in found if each.role == "student"]
    notes = {each.name: _psnr(scores[each.name], excerpt) for each in found}
    images = [View("low resolution", "Images", excerpt.lq)]
    images += [
        View(each.name, "Images", excerpt.results[each.name], notes[each.name]) for each in found
    ]
    images.append(View(GROUND_TRUTH, "Images", excerpt.hr))
    second = students[0].name if students else GROUND_TRUTH
    return Picture(
        excerpt.name,
        _source(excerpt),
        [*images, *_errors(excerpt, found), *_gaps(excerpt, students), *_attention(excerpt)],
        first=BICUBIC,
        second=second,
    )


def _psnr(scores: Sequence[SetScores], excerpt: Excerpt) -> str:
    of_set = next(each for each in scores if each.name == excerpt.source)
    return f"{decibels(of_set.images[excerpt.name].psnr_y)} dB"


def _source(excerpt: Excerpt) -> str:
    _, _, width, height = excerpt.box
    shown = f"{excerpt.source}, {width} × {height} pixels"  # noqa: RUF001
    if (width, height) == excerpt.size:
        return shown
    whole = "{} × {}".format(*excerpt.size)  # noqa: RUF001
    return f"{shown} of {whole}; PSNR-Y is that of the whole picture"


def _errors(excerpt: Excerpt, found: Sequence[Contestant]) -> list[View]:
    """Return where each result differs from the truth, in the colours of bicubic's errors."""
    maps = {each.name: _difference(excerpt.results[each.name], excerpt.hr) for each in found}
    top = _top([maps[BICUBIC]])
    return [
        View(f"|{name} − truth|", "Differences", values, top=top, unit="grey levels")  # noqa: RUF001
        for name, values in maps.items()
    ]


def _gaps(excerpt: Excerpt, students: Sequence[Contestant]) -> list[View]:
    """Return where each student differs from its teacher."""
    maps = {
        f"|{each.name} − {each.teacher}|": _difference(  # noqa: RUF001
            excerpt.results[each.name], excerpt.results[each.teacher]
        )
        for each in students
        if each.teacher is not None
    }
    top = _top(list(maps.values())) if maps else 1.0
    return [
        View(label, "Differences", values, top=top, unit="grey levels")
        for label, values in maps.items()
    ]


def _attention(excerpt: Excerpt) -> list[View]:
    return [
        View(label, "Attention", values, top=_top([values], least=1e-6), unit="attention")
        for label, values in excerpt.attention.items()
    ]


def _difference(one: Image, other: Image) -> NDArray[np.floating]:
    """Return the absolute difference in grey levels, the mean over the colours."""
    return np.abs(one.astype(np.float32) - other.astype(np.float32)).mean(axis=2)


def _top(maps: Sequence[NDArray[np.floating]], least: float = 1.0) -> float:
    """Return the number that gets the brightest colour."""
    values = np.concatenate([each[np.isfinite(each)].ravel() for each in maps])
    return max(float(np.percentile(values, TAIL)) if values.size else 0.0, least)
