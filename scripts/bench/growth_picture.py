"""The picture of what `growth.py` measures: speed above, memory below, a column for each part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import lsfd.compat  # noqa: F401

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from lsfd.reporting.style import ACCENT, MUTED, PALETTE, saved_figure

Curves = dict[str, list[float]]
"""What was measured, by name; all lists of one part belong together, value by value."""

MIB = 2**20
MEMORY = {"resident": ("all", PALETTE[0]), "own": ("without mapped files", ACCENT)}


def draw_newest(records: Path) -> None:
    """Draw the newest curves of each part beside the records that hold them."""
    found: dict[str, Curves] = {}
    for line in records.read_text(encoding="utf-8").splitlines():
        found |= json.loads(line)["details"]
    draw({part: found[part] for part in _COLUMNS if part in found}, records.with_suffix(".png"))


def draw(found: Mapping[str, Curves], path: Path) -> None:
    """Draw the curves of some parts."""
    with saved_figure(path, 4.6, "What becomes of speed and memory as work grows") as figure:
        grid = figure.subplots(2, len(found), squeeze=False)
        for (top, bottom), (part, curves) in zip(grid.T, found.items(), strict=True):
            x, label, draw_speed = _COLUMNS[part]
            draw_speed(top, curves)
            _draw_memory(bottom, curves, x)
            bottom.set_xlabel(label)
            for axes in (top, bottom):
                if part == "images":
                    axes.set_xscale("log")
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_steps(axes: Axes, curves: Curves) -> None:
    rates = [1 / value for value in curves["seconds"]]
    axes.set_title("Training: steps a second")
    axes.plot(curves["iteration"], rates, color=PALETTE[0], linewidth=0.9)
    _draw_flat(axes, median(rates[: len(rates) // 10]), "the first tenth")
    axes.set_ylim(0, 1.35 * max(rates))


def _draw_images(axes: Axes, curves: Curves) -> None:
    rates = [1 / value for value in curves["seconds"]]
    axes.set_title("Loader: samples a second")
    axes.plot(curves["images"], rates, "o-", color=PALETTE[0])
    _draw_flat(axes, rates[0], f"{curves['images'][0]:,} images")
    axes.set_ylim(0, 1.35 * max(rates))


def _draw_flat(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=MUTED, linestyle="--", linewidth=1, label=label)
    axes.legend(loc="upper right")


def _draw_pixels(axes: Axes, curves: Curves) -> None:
    sizes, seconds, middle = curves["megapixels"], curves["seconds"], MIDDLE
    axes.set_title("Upscaling: seconds")
    axes.plot(sizes, seconds, "o-", color=PALETTE[0])
    slope = (seconds[middle] - seconds[0]) / (sizes[middle] - sizes[0])
    line = [seconds[0] + slope * (size - sizes[0]) for size in sizes]
    label = f"as up to {sizes[middle]:g} megapixels"
    axes.plot(sizes, line, color=MUTED, linestyle="--", linewidth=1, label=label)
    axes.legend(loc="upper left")
    axes.set_ylim(0, 1.2 * max(*seconds, *line))


def _draw_memory(axes: Axes, curves: Curves, x: str) -> None:
    axes.set_title("Memory (MiB)" if "own" in curves else "Peak of memory (MiB)")
    for name, (label, color) in MEMORY.items():
        if name in curves:
            values = [value / MIB for value in curves[name]]
            axes.plot(
                curves[x], values, "-" if len(values) > 10 else "o-", color=color, label=label
            )
    axes.set_ylim(0, 1.6 * max(curves["resident"]) / MIB)
    if "own" in curves:
        axes.legend(loc="upper left")


MIDDLE = 2
"""Up to which size of an image the slope is taken that others are compared with."""

_COLUMNS: dict[str, tuple[str, str, Callable[[Axes, Curves], None]]] = {
    "steps": ("iteration", "steps", _draw_steps),
    "images": ("images", "images", _draw_images),
    "pixels": ("megapixels", "megapixels of output", _draw_pixels),
}
"""Of each part: the name of its horizontal axis, what is written there, and what draws speed."""
