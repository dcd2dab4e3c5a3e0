"""What the pictures of this room share: colours, fonts, and the way onto the disk."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lsfd.atomic import write_bytes
from lsfd.errors import LsfdError

# Okabe & Ito, "Color Universal Design" (2008): told apart with any kind of colour vision. Its
# yellow is left out, being too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ACCENT = "#D55E00"
MUTED = "#666666"

# 9 inches at 200 dpi are 1800 pixels, twice the width of a README: 9 pt text stays readable there.
FIGURE_WIDTH = 9.0
DPI = 200

_STYLE: Any = {  # Any: matplotlib types the keys as one long Literal.
    "font.family": "DejaVu Sans",  # Comes with matplotlib, so that every machine draws the same.
    "font.size": 9,
    "text.parse_math": False,  # A "$" in somebody's file name is no formula.
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.5,
    "legend.frameon": False,
}


@contextmanager
def saved_figure(path: str | os.PathLike[str], height: float, title: str = "") -> Iterator[Figure]:
    """Lend a figure ``height`` inches high and save it as PNG when the block ends well.

    The figure belongs to no window and to no list of pyplot, so that nothing needs closing.

    Raises:
        LsfdError: the file cannot be written.
    """
    data = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(FIGURE_WIDTH, height), dpi=DPI, layout="constrained")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        yield figure
        # Without the version of matplotlib in it, the file depends on the drawing alone.
        figure.savefig(data, format="png", metadata={"Software": None})
    write_png(path, data.getvalue())


def write_png(path: str | os.PathLike[str], data: bytes) -> None:
    """Put the bytes of a PNG under ``path`` in one step, making its folder where there is none.

    Raises:
        LsfdError: the name does not end in ``.png``, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise LsfdError(f"cannot save a picture as {path}: give it a name that ends in .png")
    write_bytes(path, data)
