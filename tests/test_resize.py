"""Bicubic against MATLAB's own files and against the definition written out."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.imaging.resize import downscale, imresize, modcrop, upscale


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def keys_cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x <= 2:
        return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def exact_sums(samples: list[int], scale: Fraction) -> list[Fraction]:
    """One row resized with rational numbers, straight from the definition, not rounded."""
    count = len(samples)
    shrink = min(scale, Fraction(1))
    sums = []
    for output in range(math.ceil(count * scale)):
        center = (output + Fraction(1, 2)) / scale - Fraction(1, 2)
        reach = math.ceil(2 / shrink) + 1
        total = norm = Fraction(0)
        for position in range(math.floor(center) - reach, math.ceil(center) + reach + 1):
            weight = keys_cubic((center - position) * shrink)
            mirrored = position % (2 * count)
            mirrored = mirrored if mirrored < count else 2 * count - 1 - mirrored
            total += weight * samples[mirrored]
            norm += weight
        sums.append(total / norm)
    return sums


@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_equals_matlab_on_set5(name: str) -> None:
    if "LSFD_DATA" not in os.environ:
        pytest.skip("LSFD_DATA is not set: the MATLAB golden files are not at hand")
    data = Path(os.environ["LSFD_DATA"])
    hr = read_image(data / "benchmarks" / "Set5" / "HR" / f"{name}.png")
    golden = read_image(data / "golden" / "matlab_bicubic_x4" / f"{name}.png")
    lr = downscale(modcrop(hr, 4), 4)
    assert lr.shape == golden.shape
    assert np.count_nonzero(lr != golden) == 0


SCALES = [Fraction(1, n) for n in (2, 3, 4, 8)] + [Fraction(n) for n in (2, 3, 4, 8)]


@pytest.mark.parametrize("scale", [*SCALES, Fraction(5, 7), Fraction(11, 4)])
def test_one_dimension_is_the_exact_sum_rounded(scale: Fraction) -> None:
    # An image one pixel wide: its width pass copies what the height pass made.
    column = noise(40, 1, channels=1)[:, :, 0]
    result = imresize(column, scale)[:, 0]
    exact = exact_sums([int(value) for value in column[:, 0]], scale)
    assert len(result) == len(exact)
    no_rounding_errors = scale.numerator * scale.denominator in (2, 4, 8)
    for value, total in zip(result, exact, strict=True):
        total = min(max(total, Fraction(0)), Fraction(255))
        if no_rounding_errors:
            assert value == math.floor(total + Fraction(1, 2))
        else:  # A half may, as in MATLAB, be off by an error of floating point before rounding.
            assert abs(int(value) - total) <= Fraction(1, 2) + Fraction(1, 10**9)


@pytest.mark.parametrize("scale", SCALES)
def test_height_first_then_width_rounded_after_each(scale: Fraction) -> None:
    def height_only(image: np.ndarray) -> np.ndarray:
        return np.stack([imresize(column[:, None], scale)[:, 0] for column in image.T], axis=1)

    image = noise(24, 48, channels=1)[:, :, 0]
    expected = height_only(height_only(image).T).T
    np.testing.assert_array_equal(imresize(image, scale), expected)
    assert expected.shape == (24 * scale, 48 * scale)
    # Width first is another result; the order is part of the definition.
    assert (height_only(height_only(image.T).T) != expected).any()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    scale=st.sampled_from([2, 3, 4, 8]),
    value=st.integers(0, 255),
)
def test_sizes_and_flat_images(height: int, width: int, scale: int, value: int) -> None:
    image = np.full((height, width, 3), value, np.uint8)
    small, large = downscale(image, scale), upscale(image, scale)
    assert small.shape == (math.ceil(height / scale), math.ceil(width / scale), 3)
    assert large.shape == (height * scale, width * scale, 3)
    assert (small == value).all() and (large == value).all()


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_commutes_with_flips_and_keeps_channels_apart(scale: int) -> None:
    image = noise(6 * scale, 5 * scale)
    small = downscale(image, scale)
    if scale != 3:  # At x3 an exact half may be rounded to either side.
        np.testing.assert_array_equal(downscale(image[::-1], scale), small[::-1])
        np.testing.assert_array_equal(downscale(image[:, ::-1], scale), small[:, ::-1])
    for channel in range(3):
        np.testing.assert_array_equal(downscale(image[:, :, channel], scale), small[:, :, channel])


def test_scale_one_changes_nothing() -> None:
    image = noise(7, 9)
    np.testing.assert_array_equal(imresize(image, 1.0), image)


def test_fraction_and_float_agree() -> None:
    image = noise(24, 27)
    np.testing.assert_array_equal(imresize(image, 1 / 3), imresize(image, Fraction(1, 3)))


def test_modcrop_keeps_the_top_left() -> None:
    image = noise(10, 13)
    np.testing.assert_array_equal(modcrop(image, 4), image[:8, :12])
    np.testing.assert_array_equal(modcrop(image[:8, :12], 4), image[:8, :12])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(LsfdError, match="float64"):
        imresize(np.zeros((8, 8, 3)), 0.5)
    with pytest.raises(LsfdError, match=r"\(0, 8, 3\)"):
        imresize(np.zeros((0, 8, 3), np.uint8), 0.5)
    with pytest.raises(LsfdError, match="positive scale"):
        imresize(noise(8, 8), 0.0)
