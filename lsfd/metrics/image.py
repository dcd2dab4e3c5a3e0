"""PSNR and SSIM as super-resolution papers measure them.

Both take 8-bit images, leave out a border (the papers: as many pixels as the scale) and look at
the luma channel, which is not rounded. So measured, RCAN's own x4 results for Set5 score their
published 32.63 dB and 0.9002.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.imaging.color import rgb_to_y

Channel = Literal["y", "rgb"]

SSIM_WINDOW = 11
"""Height and width in pixels that SSIM needs inside the border."""

LPIPS_SMALLEST = 32
"""Those that LPIPS needs, for its AlexNet; here, where importing them takes no time."""

_PEAK = 255.0
_SSIM_SIGMA = 1.5
_C1 = (0.01 * _PEAK) ** 2
_C2 = (0.03 * _PEAK) ** 2


def psnr(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], crop_border: int, channel: Channel = "y"
) -> float:
    """Return the peak signal-to-noise ratio, ``10 log10(255^2 / mse)``, in dB.

    Args:
        sr: the image to judge, uint8, H x W x 3, RGB.
        hr: the image it should be, of the same shape.
        crop_border: pixels left out on each side.
        channel: ``"y"``: the luma; ``"rgb"``: all three channels together.

    Returns:
        dB; ``inf`` for images that are equal inside the border.

    Raises:
        LsfdError: the shapes differ, an image is not uint8 H x W x 3, or nothing is left inside
            the border.
    """
    return _psnr(*_channels(sr, hr, crop_border, channel, smallest=1))


def ssim(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], crop_border: int, channel: Channel = "y"
) -> float:
    """Return the structural similarity of Wang et al. (IEEE TIP 2004).

    Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, mean over the windows
    that lie wholly inside the image. Arguments and errors as for :func:`psnr`; ``"rgb"`` is the
    mean of the three channels, and 11 x 11 pixels must be left inside the border.

    Returns:
        -1..1; 1 for equal images.
    """
    return _ssim(*_channels(sr, hr, crop_border, channel, smallest=SSIM_WINDOW))


def psnr_and_ssim(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], crop_border: int, channel: Channel = "y"
) -> tuple[float, float]:
    """Return what :func:`psnr` and :func:`ssim` do, in less time than both."""
    channels = _channels(sr, hr, crop_border, channel, smallest=SSIM_WINDOW)
    return _psnr(*channels), _ssim(*channels)


def mean_score(values: Iterable[float]) -> tuple[float, int]:
    """Return the mean of the scores that are not infinite, and how many are infinite.

    Identical images have an infinite PSNR, which must neither make a whole set infinite nor
    vanish from its mean unsaid. When all are infinite, so is the mean.

    Raises:
        LsfdError: there are no values.
    """
    scores = list(values)
    if not scores:
        raise LsfdError("there are no scores to take the mean of")
    counted = [score for score in scores if not math.isinf(score)]
    mean = math.fsum(counted) / len(counted) if counted else math.inf
    return mean, len(scores) - len(counted)


def _channels(
    sr: NDArray[np.uint8],
    hr: NDArray[np.uint8],
    crop_border: int,
    channel: Channel,
    smallest: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both images without border as float64: H x W luma, or H x W x 3."""
    if sr.shape != hr.shape:
        raise LsfdError(f"only images of one shape can be compared, not {sr.shape} and {hr.shape}")
    for image in (sr, hr):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise LsfdError(
                f"scores are for uint8 images H x W x 3, not {image.dtype} of shape {image.shape}"
            )
    height, width = sr.shape[0] - 2 * crop_border, sr.shape[1] - 2 * crop_border
    if crop_border < 0 or min(height, width) < smallest:
        raise LsfdError(
            f"an image of {sr.shape[1]}x{sr.shape[0]} pixels is too small to score: without a "
            f"border of {crop_border} on each side, {smallest}x{smallest} pixels must be left"
        )
    inside = np.s_[crop_border : crop_border + height, crop_border : crop_border + width]
    if channel == "y":
        return rgb_to_y(sr[inside]), rgb_to_y(hr[inside])
    return sr[inside].astype(np.float64), hr[inside].astype(np.float64)


def _psnr(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    mse = float(np.mean(np.square(x - y)))
    return 10.0 * math.log10(_PEAK**2 / mse) if mse > 0 else math.inf


def _ssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the mean over all windows of

    (2 mx my + C1) (2 cov + C2) / ((mx^2 + my^2 + C1) (var_x + var_y + C2)).

    In place wherever it can be: new arrays of this size cost more than the arithmetic.
    """
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    covariance = _window_mean(x * y)
    squares = x * x
    squares += y * y
    # The formula holds only the sum of the two variances: one filtering does for both.
    variances = _window_mean(squares)
    product = mean_x * mean_y
    mean_x *= mean_x
    mean_y *= mean_y
    squared_means = mean_x
    squared_means += mean_y
    covariance -= product
    variances -= squared_means
    similarity = _affine(product, 2, _C1)
    similarity *= _affine(covariance, 2, _C2)
    similarity /= _affine(squared_means, 1, _C1)
    similarity /= _affine(variances, 1, _C2)
    return float(similarity.mean())


def _affine(array: NDArray[np.float64], factor: float, constant: float) -> NDArray[np.float64]:
    """Return ``factor * array + constant``, in the array's own memory."""
    array *= factor
    array += constant
    return array


def _window_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian mean around each pixel whose window lies inside the image."""
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, _SSIM_SIGMA)
    edge = SSIM_WINDOW // 2
    filtered = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)
    return np.asarray(filtered[edge:-edge, edge:-edge], np.float64)
