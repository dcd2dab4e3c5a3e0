"""The scores of one image and of a set of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsfd.metrics.image import LPIPS_SMALLEST, mean_score, psnr_and_ssim
from lsfd.reporting.tables import markdown_table

Distance = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Compares two uint8 images H x W x 3: :class:`lsfd.metrics.lpips.Lpips`."""


@dataclass(frozen=True)
class ImageScores:
    """PSNR in dB (``inf`` for identical images) and SSIM, on luma and on RGB; perhaps LPIPS."""

    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float
    lpips: float | None = None

    @classmethod
    def of(
        cls,
        sr: NDArray[np.uint8],
        hr: NDArray[np.uint8],
        crop_border: int,
        distance: Distance | None = None,
    ) -> ImageScores:
        """Score an image, uint8 H x W x 3, against the original of the same shape.

        Args:
            sr: the image.
            hr: the original.
            crop_border: pixels on each side that no score looks at.
            distance: LPIPS, or None to leave it out.

        Raises:
            LsfdError: the shapes differ, or the images are too small.
        """
        psnr_y, ssim_y = psnr_and_ssim(sr, hr, crop_border, "y")
        psnr_rgb, ssim_rgb = psnr_and_ssim(sr, hr, crop_border, "rgb")
        return cls(
            psnr_y=psnr_y,
            ssim_y=ssim_y,
            psnr_rgb=psnr_rgb,
            ssim_rgb=ssim_rgb,
            lpips=None if distance is None else _perceptual(distance, sr, hr, crop_border),
        )


@dataclass(frozen=True)
class SetScores:
    """The scores of a set: of each image by name, and their means."""

    name: str
    images: dict[str, ImageScores]

    @property
    def psnr_y(self) -> float:
        """Mean PSNR in dB on luma, over the images that are not identical."""
        return self._mean(lambda scores: scores.psnr_y)

    @property
    def ssim_y(self) -> float:
        """Mean SSIM on luma."""
        return self._mean(lambda scores: scores.ssim_y)

    @property
    def psnr_rgb(self) -> float:
        """Mean PSNR in dB on RGB, over the images that are not identical."""
        return self._mean(lambda scores: scores.psnr_rgb)

    @property
    def ssim_rgb(self) -> float:
        """Mean SSIM on RGB."""
        return self._mean(lambda scores: scores.ssim_rgb)

    @property
    def lpips(self) -> float | None:
        """Mean LPIPS (0: equal), where all images have one."""
        values = [scores.lpips for scores in self.images.values()]
        known = [value for value in values if value is not None]
        return mean_score(known)[0] if len(known) == len(values) else None

    @property
    def means(self) -> ImageScores:
        """All means."""
        return ImageScores(self.psnr_y, self.ssim_y, self.psnr_rgb, self.ssim_rgb, self.lpips)

    @property
    def identical(self) -> int:
        """How many images equal their original in luma, so that their PSNR is infinite."""
        return mean_score(scores.psnr_y for scores in self.images.values())[1]

    def entry(self) -> dict[str, Any]:
        """Return means and images as JSON values.

        ``{"psnr_y": 32.6, "ssim_y": 0.9, "psnr_rgb": ..., "ssim_rgb": ..., "images": {"baby":
        {"psnr_y": ...}}}``, and ``"lpips"`` where it was measured. JSON has no infinity: an
        infinite PSNR is the string ``"inf"``. With k identical images there is ``"identical": k``
        beside the means, which are over the rest.
        """
        entry: dict[str, Any] = _json_values(self.means)
        if self.identical:
            entry["identical"] = self.identical
        entry["images"] = {name: _json_values(scores) for name, scores in self.images.items()}
        return entry

    def to_json(self) -> dict[str, Any]:
        """Return ``{"sets": {name: entry}}``, see :meth:`entry`."""
        return {"sets": {self.name: self.entry()}}

    def to_markdown(self) -> str:
        """Return a table of the images, with the means as its last row."""
        header = [self.name, "PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM-RGB"]
        rows: list[list[str | float | None]] = [
            [name, scores.psnr_y, scores.ssim_y, scores.psnr_rgb, scores.ssim_rgb]
            for name, scores in [*self.images.items(), ("mean", self.means)]
        ]
        table = markdown_table(header, rows, digits={1: 2, 2: 4, 3: 2, 4: 4})
        return f"{table}\n{self.identical_note()}\n" if self.identical else table

    def identical_note(self) -> str:
        """Return the sentence that says what a mean leaves out."""
        return (
            f"{self.identical} of {len(self.images)} images are identical to the original; their "
            "infinite PSNR is not in the mean."
        )

    def _mean(self, score: Callable[[ImageScores], float]) -> float:
        return mean_score(score(scores) for scores in self.images.values())[0]


def _perceptual(
    distance: Distance, sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int
) -> float | None:
    """Return the distance inside a border; None for images too small for it."""
    height, width, _ = sr.shape
    inside = np.s_[border : height - border, border : width - border]
    fits = min(sr[inside].shape[:2]) >= LPIPS_SMALLEST
    return distance(sr[inside], hr[inside]) if fits else None


def _json_values(scores: ImageScores) -> dict[str, float | str]:
    """Return the scores by name, infinity as a string."""
    return {
        name: value if math.isfinite(value) else str(value)
        for name, value in asdict(scores).items()
        if value is not None
    }
