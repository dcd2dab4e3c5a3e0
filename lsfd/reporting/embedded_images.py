"""Images inside an HTML page: as ``data:`` addresses, so that no file lies beside it."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = "magma"
"""matplotlib's map from numbers to colours: rises in brightness, reads with any colour vision."""


def data_address(image: NDArray[np.uint8]) -> str:
    """Return an image, uint8 H x W x 3, as a lossless WebP in a ``data:`` address.

    About 1.3 characters a pixel for a photograph; PNG would take 1.9.
    """
    data = io.BytesIO()
    Image.fromarray(image).save(data, "WEBP", lossless=True, quality=50, method=4)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"


def coloured(values: NDArray[np.floating], top: float) -> NDArray[np.uint8]:
    """Return a map of numbers as colours, from 0 to ``top``; numbers outside take the end's.

    Args:
        values: h x w; what is not finite counts as 0.
        top: more than 0.

    Returns:
        uint8, h x w x 3.
    """
    shares = np.nan_to_num(values / top, nan=0.0, posinf=0.0, neginf=0.0)
    indices = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return _table()[indices]


def colour_bar() -> str:
    """Return all colours side by side, from low to high."""
    return data_address(_table()[None])


def thumbnail(image: NDArray[np.uint8], side: int) -> str:
    """Return the middle of an image as a square of ``side`` pixels."""
    height, width, _ = image.shape
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = Image.fromarray(image[top : top + shorter, left : left + shorter])
    return data_address(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)))


def _table() -> NDArray[np.uint8]:
    return matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3]
