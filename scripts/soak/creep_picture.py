"""The picture of what `creep.py` watches: a column for training, one for upscaling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from lsfd.reporting.style import ACCENT, PALETTE, saved_figure

TITLES = {"train": "Training", "upscale": "Upscaling a folder"}
UNITS = {"train": "step", "upscale": "image"}


def draw_newest(records: Path) -> None:
    """Draw the newest curves of each part beside the records that hold them."""
    found: dict[str, Any] = {}
    for line in records.read_text(encoding="utf-8").splitlines():
        figures = json.loads(line)["figures"]
        found |= {part: figures[part] for part in TITLES if part in figures}
    with saved_figure(records.with_suffix(".png"), 6, "Whether long work creeps") as figure:
        grid = figure.subplots(3, len(found), squeeze=False)
        for column, (part, curves) in zip(grid.T, found.items(), strict=True):
            _draw_part(column, part, curves)


def _draw_part(column: Any, part: str, curves: dict[str, list[float]]) -> None:
    memory, handles, speed = column
    done = curves["done"]
    memory.set_title(f"{TITLES[part]}: memory, MiB")
    memory.plot(done, curves["resident"], color=PALETTE[0], label="all")
    memory.plot(done, curves["own"], color=ACCENT, label="without mapped files")
    handles.set_title("open files and threads")
    handles.plot(done, curves["files"], color=PALETTE[0], label="open files")
    handles.plot(done, curves["threads"], color=ACCENT, label="threads")
    speed.set_title(f"processor ms a{'n' if part == 'upscale' else ''} {UNITS[part]}")
    steps = np.diff(done)
    some = steps > 0
    milliseconds = 1000 * np.diff(curves["processor"])[some] / steps[some]
    speed.plot(np.asarray(done[1:])[some], milliseconds, color=PALETTE[0], linewidth=0.9)
    speed.set_xlabel(f"{UNITS[part]}s")
    for axes in column:
        _from_zero(axes)
    memory.legend()
    handles.legend()


def _from_zero(axes: Axes) -> None:
    highest = max(float(np.max(line.get_ydata())) for line in axes.get_lines())
    axes.set_ylim(0, 1.3 * highest)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
