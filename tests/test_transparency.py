"""Hidden colours do not reach what can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from lsfd.imaging.transparency import REACH, spread_colours


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 4])
def test_hidden_pixels_get_the_colours_beside_them(dtype: type, bands: int) -> None:
    pixels = np.zeros((20, 40, bands), dtype)
    pixels[:, 20:] = np.iinfo(dtype).max
    pixels[:, 20:, :-1] = 137
    spread = spread_colours(pixels)
    assert (spread[:, 20 - REACH :, :-1] == 137).all()
    assert (spread[:, : 20 - REACH, :-1] == 0).all()
    assert np.array_equal(spread[:, :, -1], pixels[:, :, -1])


def test_what_can_be_seen_is_left() -> None:
    pixels = np.random.default_rng(0).integers(0, 3, (30, 30, 4), np.uint8)
    seen = pixels[:, :, 3] > 0
    assert np.array_equal(spread_colours(pixels)[seen], pixels[seen])
    for alpha in (0, 255):
        pixels[:, :, 3] = alpha
        assert spread_colours(pixels) is pixels


def test_a_part_with_enough_around_it_gets_what_the_whole_gets() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 60, 4), np.uint8)
    pixels[:, :, 3] = np.random.default_rng(2).random((60, 60)) > 0.99
    whole = spread_colours(pixels)[20:40, 20:40]
    around = slice(20 - REACH, 40 + REACH)
    part = spread_colours(pixels[around, around])[REACH:-REACH, REACH:-REACH]
    assert np.array_equal(part, whole)
