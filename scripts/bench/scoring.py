"""Scoring four benchmark sets by PSNR and SSIM on luma, beside BasicSR's functions.

    LSFD_DATA=... python scripts/bench/scoring.py

The images are those of Set5, Set14 and Urban100, and 100 of the training images of BSDS in the
place of B100, all at x4 against their bicubic enlargements, read beforehand. The peer scores one
image after the other, as BasicSR's validation does; ours uses all cores. All scores are compared.
The bound is the four filterings that SSIM cannot do without, on as many threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import lsfd.compat  # noqa: F401

import cv2
import numpy as np
from basicsr.metrics import calculate_psnr, calculate_ssim
from common import Contestant, Row, keep, parser
from numpy.typing import NDArray

from lsfd.allocation import keep_freed_memory
from lsfd.cli import exit_status
from lsfd.evaluation.sets import data_folder
from lsfd.imaging.files import find_images, read_image
from lsfd.imaging.resize import imresize, modcrop
from lsfd.metrics.cost import take_turns
from lsfd.metrics.image import psnr_and_ssim

SCALE = 4
BORDER = SCALE
AGREED = 1e-6

Pair: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Scores: TypeAlias = list[tuple[float, float]]


def pairs() -> list[Pair]:
    """Return enlarged images and originals."""
    root = data_folder()
    files = [
        *(f for name in ("Set5", "Set14") for f in find_images(root / "benchmarks" / name / "HR")),
        *find_images(root / "train" / "BSDS399")[:100],
        *find_images(root / "benchmarks" / "Urban100" / "HR"),
    ]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: _pair(modcrop(read_image(file), SCALE)), files))


def _pair(hr: NDArray[np.uint8]) -> Pair:
    return imresize(imresize(hr, 1 / SCALE), SCALE), hr


def basicsr(pairs: Sequence[Pair]) -> Scores:
    """Score one image after the other, which BasicSR holds as BGR."""
    return [
        (
            calculate_psnr(sr, hr, BORDER, test_y_channel=True),
            calculate_ssim(sr, hr, BORDER, test_y_channel=True),
        )
        for sr, hr in pairs
    ]


def all_cores(pairs: Sequence[Pair]) -> Scores:
    """Score on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda pair: psnr_and_ssim(pair[0], pair[1], BORDER), pairs))


def peer() -> Callable[[], object]:
    """Prepare BasicSR's functions."""
    images = [(bgr(sr), bgr(hr)) for sr, hr in pairs()]
    return lambda: basicsr(images)


def bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image with its channels the other way round."""
    return np.ascontiguousarray(image[..., ::-1])


def ours() -> Callable[[], object]:
    """Prepare this project's functions."""
    keep_freed_memory()
    images = pairs()
    return lambda: all_cores(images)


def filterings() -> Callable[[], object]:
    """Prepare the four filterings of each image, and nothing else."""
    keep_freed_memory()
    planes = [hr[..., 0].astype(np.float64) for _, hr in pairs()]
    kernel = cv2.getGaussianKernel(11, 1.5)

    def four(plane: NDArray[np.float64]) -> None:
        for _ in range(4):
            cv2.sepFilter2D(plane, cv2.CV_64F, kernel, kernel)

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(four, planes))

    return run


def main() -> None:
    """Compare the scores, then measure, print and keep."""
    arguments = parser(__doc__).parse_args()
    images = pairs()
    both = zip(basicsr([(bgr(sr), bgr(hr)) for sr, hr in images]), all_cores(images), strict=True)
    difference = max(abs(a - b) for theirs, own in both for a, b in zip(theirs, own, strict=True))
    if difference > AGREED:
        raise SystemExit(f"the scores differ by {difference:.2g}, which is more than {AGREED:g}")
    contestants = {
        "peer": Contestant(peer),
        "ours": Contestant(ours),
        "filterings": Contestant(filterings),
    }
    seconds = take_turns(contestants, arguments.rounds)
    row = Row(
        f"PSNR and SSIM of {len(images)} images", "BasicSR's metrics", "lsfd", "all of them",
        seconds["peer"], seconds["ours"], 5, "SSIM's filterings", min(seconds["filterings"]),
    )  # fmt: skip
    keep("scoring", [row], arguments.output, {"largest_difference": difference})


if __name__ == "__main__":
    sys.exit(exit_status("scoring", main))
