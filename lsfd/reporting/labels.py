"""Names beside points that lie close together: in a column at the side, each with a thin line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lsfd.reporting.style import MUTED

_MARGIN = 0.16
"""The column's share of the figure's width."""
_GAP = 0.055
"""Least distance of two names, as a share of the axes' height."""


def name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write names to the right of the axes, in the order of their points from bottom to top.

    Call it when everything is drawn: the range of the values has to be final.

    Args:
        axes: where the points are; the only ones of their figure.
        points: name, x, y.
    """
    finite = [point for point in points if np.isfinite(point[2])]
    ordered = sorted(finite, key=lambda point: point[2])
    low, high = axes.get_ylim()
    gap = min(_GAP, 1 / max(len(ordered), 1))
    heights = apart([(y - low) / (high - low) for *_, y in ordered], gap)
    for (name, x, y), height in zip(ordered, heights, strict=True):
        label = axes.annotate(
            name, (x, y), (1.02, height), textcoords="axes fraction", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "alpha": 0.6},
        )  # fmt: skip
        label.set_in_layout(False)
    figure = axes.get_figure(root=True)
    engine = None if figure is None else figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1 - _MARGIN, 1))


def apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions apart, as little as can be, and into 0..1 where that has room.

    Neighbours that are too close form a block, which is centred on where its members were.
    """
    blocks: list[tuple[float, int]] = []  # middle, members
    for position in positions:
        middle, count = position, 1
        while True:
            half = gap * (count - 1) / 2
            middle = max(min(middle, 1 - half), half)
            if not blocks or middle - blocks[-1][0] >= gap * (count + blocks[-1][1]) / 2:
                break
            other, members = blocks.pop()
            middle = (middle * count + other * members) / (count + members)
            count += members
        blocks.append((middle, count))
    return [
        middle + gap * (index - (count - 1) / 2)
        for middle, count in blocks
        for index in range(count)
    ]
