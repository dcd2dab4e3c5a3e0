"""A picture of where a distillation loss looks."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.reporting.style import FIGURE_WIDTH, saved_figure


def save_attention(
    path: str | os.PathLike[str],
    attention: NDArray[np.floating],
    image: NDArray[np.uint8],
    title: str = "",
) -> None:
    """Save an image beside the attention map laid over its grey version, with a colour bar.

    Attention has a long tail: the colours end at the 99.5th percentile (the bar's arrow says so),
    because one bright pixel would darken all others.

    Args:
        path: the PNG to write.
        attention: h x w, any range; it is stretched over the image, so it may lie on the coarser
            low-resolution grid. Non-finite values stay uncoloured.
        image: uint8, H x W x 3, RGB.
        title: what the map is, for example ``"l_lsfd_feature, body.7"``.

    Raises:
        LsfdError: the map is not two-dimensional or has no finite value; the file cannot be
            written.
    """
    shown = np.ma.masked_invalid(np.asarray(attention, dtype=np.float64))
    if shown.ndim != 2 or shown.count() == 0:
        raise LsfdError(
            f"cannot draw an attention map of shape {shown.shape} with {shown.count()} finite "
            "values: give one h x w map with finite values"
        )
    rows, columns = image.shape[:2]
    low, high = np.percentile(shown.compressed(), [0, 99.5])
    grey = image.mean(axis=2)
    height = 0.45 * FIGURE_WIDTH * rows / columns + 0.4
    with saved_figure(path, height, title) as figure:
        plain, overlaid = figure.subplots(1, 2)
        plain.imshow(image)
        overlaid.imshow(grey, cmap="gray", vmin=0, vmax=255)
        coloured = overlaid.imshow(
            shown,
            cmap="magma",
            alpha=0.75,
            vmin=low,
            vmax=max(high, low + 1e-12),
            interpolation="nearest",
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        )
        tail = "max" if shown.max() > high else "neither"
        figure.colorbar(coloured, ax=overlaid, extend=tail, label="attention", shrink=0.9)
        for axes in (plain, overlaid):
            axes.set_axis_off()
