"""The picture that every super-resolution paper has: one crop, upscaled by several methods."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lsfd.errors import LsfdError
from lsfd.reporting.captions import caption_height, typeset
from lsfd.reporting.style import ACCENT, write_png

Box = tuple[int, int, int, int]

_WIDTH = 1850  # Pixels, aimed at: the crops' integer factor decides.
_GAP = 14


@dataclass(frozen=True, eq=False)
class Result:
    """One method's answer.

    Attributes:
        label: name of the method.
        image: uint8, H x W x 3, RGB, as large as the ground truth.
        caption: second line, for example ``"31.74 dB"``.
        score: higher is better; label and caption of the best result are bold. ``None``
            stays out of the contest.
    """

    label: str
    image: NDArray[np.uint8]
    caption: str = ""
    score: float | None = None


def save_comparison(
    path: str | os.PathLike[str],
    hr: NDArray[np.uint8],
    results: Sequence[Result],
    box: Box | None = None,
    title: str = "",
) -> None:
    """Save the whole ground truth with a rectangle, and beside it that crop of each result.

    The crops are enlarged by one integer factor without interpolation, so that every square is a
    pixel of the result; the last one is the ground truth's. Up to five stand in one row (four:
    two by two), more in two rows. The picture is about 1850 pixels wide, as near as the factor
    allows. For "low resolution, bicubic, student, teacher", give the low-resolution image
    enlarged by ``np.repeat`` as the first result.

    Args:
        path: the PNG to write.
        hr: ground truth, uint8, H x W x 3, RGB.
        results: at least one; the first should be the baseline (see ``box``).
        box: crop as (left, top, width, height) in pixels of ``hr``; ``None``: the most telling
            one (``telling_box``) of a quarter of the shorter side, at least 40 and at most 80.
        title: name of the image, set under it.

    Raises:
        LsfdError: no results, an image of another shape or type than ``hr``, a box that is not
            inside the image, or a file that cannot be written.
    """
    _check_images(hr, results)
    if box is None:
        side = min(max(40, min(min(hr.shape[:2]) // 4, 80)), *hr.shape[:2])
        box = telling_box(results[0].image, hr, side)
    _check_box(box, hr)
    panels = [*results, Result("Ground truth", hr)]
    best = _best_score(results)
    factor = _factor(len(panels), hr, box)
    captions = [
        typeset([p.label, p.caption], best is not None and p.score == best, factor * box[2])
        for p in panels
    ]
    layout = _Layout.of(len(panels), hr, box, factor, max(c.height for c in captions))
    pixels = f"{hr.shape[1]} × {hr.shape[0]} pixels"  # noqa: RUF001
    whole_caption = typeset([title or "Ground truth", pixels], False, layout.whole[0])

    width, height = layout.canvas
    height = max(height, _GAP + layout.whole[1] + whole_caption.height + _GAP)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    canvas.paste(_whole_with_rectangle(hr, box, layout.whole), (_GAP, _GAP))
    whole_caption.draw(draw, _GAP + layout.whole[0] / 2, _GAP + layout.whole[1])
    for panel, caption, (left, top) in zip(panels, captions, layout.corners, strict=True):
        crop = _crop(panel.image, box).repeat(factor, axis=0).repeat(factor, axis=1)
        canvas.paste(Image.fromarray(crop), (left, top))
        caption.draw(draw, left + crop.shape[1] / 2, top + crop.shape[0])

    data = io.BytesIO()
    canvas.save(data, format="PNG")
    write_png(path, data.getvalue())


def telling_box(first: NDArray[np.uint8], hr: NDArray[np.uint8], side: int) -> Box:
    """Return the square where ``first`` (the baseline) is farthest from ``hr``.

    Farthest: greatest mean absolute difference, over squares a quarter of their side apart; the
    uppermost, then leftmost, where several are equal.

    Args:
        first: uint8, H x W x 3.
        hr: uint8, H x W x 3.
        side: of the square in pixels, at most min(H, W).

    Returns:
        (left, top, width, height).
    """
    difference = np.abs(first.astype(np.int64) - hr).sum(axis=2)
    table = np.pad(difference.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    tops, lefts = (
        np.unique([*range(0, length - side, max(1, side // 4)), length - side])
        for length in hr.shape[:2]
    )
    upper, lower = table[tops], table[tops + side]
    sums = lower[:, lefts + side] - lower[:, lefts] - upper[:, lefts + side] + upper[:, lefts]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(lefts[column]), int(tops[row]), side, side


def _grid(panels: int) -> tuple[int, int]:
    """Return (rows, columns) of the crops."""
    rows = 2 if panels == 4 or panels > 5 else 1
    return rows, -(-panels // rows)


def _factor(panels: int, hr: NDArray[np.uint8], box: Box) -> int:
    """Return the enlargement of the crops that brings the picture nearest to ``_WIDTH``."""
    rows, columns = _grid(panels)
    aspect: float = hr.shape[1] / hr.shape[0]
    between = (rows - 1) * (caption_height(2) + _GAP)
    free = _WIDTH - (columns + 2) * _GAP - aspect * between
    return max(1, round(free / (aspect * rows * box[3] + columns * box[2])))


@dataclass(frozen=True)
class _Layout:
    """Where everything stands: sizes and upper left corners as (x, y) in pixels."""

    canvas: tuple[int, int]
    whole: tuple[int, int]
    corners: Sequence[tuple[int, int]]

    @classmethod
    def of(
        cls, panels: int, hr: NDArray[np.uint8], box: Box, factor: int, text_height: int
    ) -> _Layout:
        """Make the whole image as high as the rows of crops beside it and the text between."""
        rows, columns = _grid(panels)
        step_x, step_y = box[2] * factor + _GAP, box[3] * factor + text_height + _GAP
        whole_height = rows * step_y - text_height - _GAP
        whole_width = max(1, round(whole_height * hr.shape[1] / hr.shape[0]))
        left = whole_width + 2 * _GAP
        return cls(
            canvas=(left + columns * step_x, rows * step_y + _GAP),
            whole=(whole_width, whole_height),
            corners=[
                (left + index % columns * step_x, _GAP + index // columns * step_y)
                for index in range(panels)
            ],
        )


def _check_images(hr: NDArray[np.uint8], results: Sequence[Result]) -> None:
    if not results:
        raise LsfdError("a comparison picture needs at least one result beside the ground truth")
    for label, image in [("ground truth", hr), *((r.label, r.image) for r in results)]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise LsfdError(
                f"the image '{label}' is {image.dtype} of shape {image.shape}: "
                "a comparison picture takes uint8, H x W x 3"
            )
        if image.shape != hr.shape:
            raise LsfdError(
                f"the image '{label}' is {image.shape[1]} x {image.shape[0]} pixels, the ground "
                f"truth {hr.shape[1]} x {hr.shape[0]}: crop the ground truth to a multiple of "
                "the scale first"
            )


def _check_box(box: Box, hr: NDArray[np.uint8]) -> None:
    left, top, width, height = box
    inside = left >= 0 and top >= 0 and left + width <= hr.shape[1] and top + height <= hr.shape[0]
    if not inside or width < 1 or height < 1:
        raise LsfdError(
            f"the box (left, top, width, height) = {box} is not inside the image of "
            f"{hr.shape[1]} x {hr.shape[0]} pixels"
        )


def _best_score(results: Sequence[Result]) -> float | None:
    scores = [r.score for r in results if r.score is not None and not math.isnan(r.score)]
    return max(scores) if len(scores) > 1 else None


def _crop(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    left, top, width, height = box
    return image[top : top + height, left : left + width]


def _whole_with_rectangle(hr: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> Image.Image:
    whole = Image.fromarray(hr).resize(size, Image.Resampling.LANCZOS)
    zoom = size[0] / hr.shape[1]
    left, top, width, height = (round(value * zoom) for value in box)
    draw = ImageDraw.Draw(whole)
    # White around the colour: one of the two is seen on any image. Both stay outside the crop.
    for outset, colour, line in ((6, "white", 6), (5, ACCENT, 4)):
        corners = (left - outset, top - outset, left + width + outset, top + height + outset)
        draw.rectangle(corners, outline=colour, width=line)
    return whole
