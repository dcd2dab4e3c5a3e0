"""Low-resolution images: bicubic alone, or degraded by blur, noise and JPEG as well.

    LR = JPEG_q(bicubic(blur_sigma * HR) + noise)

The degradations are BasicSR's own functions, at fixed strengths. An LR image is a function of its
HR image alone, the noise included, so that every run and every table sees the same one.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.imaging.resize import downscale

KERNEL_SIGMAS = 3
"""The blur's kernel ends so many standard deviations from its middle."""

_numpys_generator = threading.Lock()


@dataclass(frozen=True)
class Degradation:
    """What happens to an LR image beside the bicubic reduction; None: this does not.

    Attributes:
        blur: standard deviation of a Gaussian in HR pixels, applied before the reduction.
        noise: standard deviation of white Gaussian noise in grey levels, added after it.
        jpeg: quality, 1 to 100, of a JPEG compression at the end.
    """

    blur: float | None = None
    noise: float | None = None
    jpeg: int | None = None

    def __post_init__(self) -> None:
        """Check the strengths.

        Raises:
            LsfdError: one is out of its range.
        """
        for name, strength in (("blur", self.blur), ("noise", self.noise)):
            if strength is not None and not (strength > 0 and math.isfinite(strength)):
                raise LsfdError(f"{name}: must be more than 0, not {strength:g}")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise LsfdError(f"jpeg: must be a quality of 1 to 100, not {self.jpeg}")

    def __str__(self) -> str:
        strengths = (("blur", self.blur), ("noise", self.noise), ("JPEG", self.jpeg))
        return ", ".join(f"{name} {value:g}" for name, value in strengths if value is not None)


def low_resolution(
    hr: NDArray[np.uint8], scale: int, degradation: Degradation | None = None
) -> NDArray[np.uint8]:
    """Make the LR image of an HR image.

    Args:
        hr: uint8, H x W x 3, RGB, its sides multiples of ``scale``.
        scale: HR size over LR size.
        degradation: what happens to it beside MATLAB's bicubic; None: nothing.

    Returns:
        uint8, H/scale x W/scale x 3, RGB.

    Raises:
        LsfdError: the image is too small for the blur.
    """
    if degradation is None:
        return downscale(hr, scale)
    if degradation.blur is not None:
        hr = _blurred(hr, degradation.blur)
    lr = downscale(hr, scale)
    if degradation.noise is not None:
        lr = _noisy(lr, degradation.noise)
    if degradation.jpeg is not None:
        lr = _compressed(lr, degradation.jpeg)
    return lr


# BasicSR is imported where it is needed: images that are only shrunk can do without torch.


def _blurred(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    import lsfd.compat  # noqa: F401

    import torch
    from basicsr.data.degradations import bivariate_Gaussian
    from basicsr.utils.img_process_util import filter2D

    reach = math.ceil(KERNEL_SIGMAS * sigma)
    if min(image.shape[:2]) <= reach:  # Its borders are mirrored.
        raise LsfdError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels is too small for a blur of "
            f"{sigma:g} pixels, whose kernel reaches {reach} pixels far; blur less"
        )
    kernel = bivariate_Gaussian(2 * reach + 1, sigma, sigma, 0, isotropic=True)
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None]
    blurred = filter2D(planes, torch.from_numpy(kernel).float()[None])[0]
    return _as_bytes(blurred.numpy().transpose(1, 2, 0))


def _noisy(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    import lsfd.compat  # noqa: F401

    from basicsr.data.degradations import add_gaussian_noise

    pixels = image.astype(np.float32) / 255
    with _seeded(zlib.crc32(image.tobytes())):
        return _as_bytes(255 * add_gaussian_noise(pixels, sigma, clip=True, rounds=True))


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    import lsfd.compat  # noqa: F401

    from basicsr.data.degradations import add_jpg_compression

    # BasicSR's images are BGR here; JPEG treats the three colours differently.
    pixels = image[:, :, ::-1].astype(np.float32) / 255
    return _as_bytes(255 * add_jpg_compression(pixels, quality)[:, :, ::-1])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Lend NumPy's global generator, which BasicSR draws from, and put it back as it was.

    To one thread at a time: images are made in several.
    """
    with _numpys_generator:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)


def _as_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.round().clip(0, 255).astype(np.uint8))
