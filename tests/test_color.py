"""Luma against MATLAB's known values and against BasicSR."""

from __future__ import annotations

import lsfd.compat  # noqa: F401

import numpy as np
from basicsr.utils.color_util import rgb2ycbcr

from lsfd.imaging.color import rgb_to_y


def test_known_values() -> None:
    colors = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(rgb_to_y(colors), [[16.0, 235.0, 81.481]], rtol=0, atol=1e-9)


def test_equals_basicsr() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    luma = rgb_to_y(image)
    assert luma.dtype == np.float64 and luma.shape == (9, 7)
    expected = rgb2ycbcr(image.astype(np.float32) / 255.0, y_only=True) * 255.0
    np.testing.assert_allclose(luma, expected, rtol=0, atol=1e-3)
