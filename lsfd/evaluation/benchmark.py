"""Measuring upscalers on benchmark sets as the papers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lsfd.errors import LsfdError
from lsfd.evaluation.report import BenchmarkReport, BenchmarkRow
from lsfd.evaluation.scores import ImageScores, SetScores
from lsfd.evaluation.sets import BenchmarkSet, find_set
from lsfd.imaging import resize
from lsfd.imaging.files import write_image
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.student_file import load_any

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Turns a uint8 H x W x 3 image into a larger one."""

OnImage = Callable[[str, NDArray[np.uint8]], None]
"""Is given the name and the super-resolved image of each pair."""

BICUBIC = "bicubic"
PAPER_OUTPUT = (720, 1280)
"""Height and width of the output for which papers state multiply-adds."""


def bicubic(scale: int) -> Upscale:
    """Return the baseline of every paper: MATLAB's bicubic enlargement."""
    return partial(resize.upscale, scale=scale)


def evaluate(
    upscale: Upscale,
    benchmark_set: BenchmarkSet,
    scale: int,
    on_image: OnImage | None = None,
) -> SetScores:
    """Score an upscaler on a set, with a border of ``scale`` pixels left out.

    Args:
        upscale: turns an input into an image ``scale`` times as large.
        benchmark_set: the pairs, at the same scale.
        scale: the factor.
        on_image: called with each name and super-resolved image.

    Raises:
        LsfdError: the set has another scale, a file cannot be read, or an image cannot be scored.
    """
    if benchmark_set.scale != scale:
        raise LsfdError(
            f"the set {benchmark_set.name} was made for x{benchmark_set.scale}, not x{scale}"
        )
    images = {}
    for name, lq, hr in tqdm(benchmark_set, benchmark_set.name, leave=False, disable=None):
        sr = upscale(lq)
        try:
            images[name] = ImageScores.of(sr, hr, crop_border=scale)
        except LsfdError as error:
            raise LsfdError(f"{benchmark_set.name}/{name}: {error}") from error
        if on_image is not None:
            on_image(name, sr)
    return SetScores(benchmark_set.name, images)


def benchmark(
    weights: Sequence[Path],
    sets: Sequence[str],
    scale: int,
    *,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    tile: int | None = None,
    pictures: Path | None = None,
) -> BenchmarkReport:
    """Score bicubic enlargement and trained networks on sets by name.

    Args:
        weights: files that describe themselves.
        sets: names or folders, see :func:`lsfd.evaluation.sets.find_set`.
        scale: the factor.
        root: where the sets lie.
        device: and the rest: see :func:`benchmark_sets`.
        precision: see there.
        tile: see there.
        pictures: see there.

    Raises:
        LsfdError: a set is not found, and as :func:`benchmark_sets`.
    """
    return benchmark_sets(
        weights,
        [find_set(name, root, scale) for name in sets],
        scale,
        device=device,
        precision=precision,
        tile=tile,
        pictures=pictures,
    )


def benchmark_sets(
    weights: Sequence[Path],
    sets: Sequence[BenchmarkSet],
    scale: int,
    *,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    tile: int | None = None,
    pictures: Path | None = None,
    suffix: str = "",
) -> BenchmarkReport:
    """Score bicubic enlargement and trained networks.

    All networks are loaded before the first image is computed, so that a mistake shows at once.

    Args:
        weights: files that :func:`lsfd.networks.student_file.load_any` reads.
        sets: what to score on.
        scale: the factor of networks and sets.
        options: the networks' BasicSR options, for files that do not describe themselves.
        key: which part of such a file holds the weights; None: found by itself.
        device: as for :class:`lsfd.inference.upscaler.Upscaler`.
        precision: as for ``Upscaler``.
        tile: as for ``Upscaler``.
        pictures: folder for the images, ``PICTURES/<set>/<model>/<name>.png``; None for none.
        suffix: put behind their names.

    Raises:
        LsfdError: a file cannot be loaded or enlarges by another factor, two models or sets have
            one name, and as :func:`evaluate`.
    """
    _refuse_doubles("sets", [each.name for each in sets])
    names = _model_names(weights)
    upscalers = []
    for path in weights:
        network, card = load_any(path, options, key)
        if card.scale != scale:
            raise LsfdError(f"{path} enlarges x{card.scale}, but the benchmark is for x{scale}")
        upscalers.append(Upscaler(network, scale, device, precision, tile))
    costs = [_cost(upscaler) for upscaler in upscalers]
    rows = [BenchmarkRow(BICUBIC, 0, 0, _score(BICUBIC, bicubic(scale), sets, pictures, suffix))]
    for name, upscaler, cost in zip(names, upscalers, costs, strict=True):
        rows.append(BenchmarkRow(name, *cost, _score(name, upscaler, sets, pictures, suffix)))
    return BenchmarkReport(scale, tuple(rows))


def _score(
    model: str,
    upscale: Upscale,
    sets: Sequence[BenchmarkSet],
    pictures: Path | None,
    suffix: str,
) -> tuple[SetScores, ...]:
    """Score one model on all sets and write its images where they are wanted."""
    scores = []
    for each in tqdm(sets, model, disable=None):
        folder = None if pictures is None else pictures / each.name / model
        scores.append(evaluate(upscale, each, each.scale, _picture_writer(folder, suffix)))
    return tuple(scores)


def _cost(upscaler: Upscaler) -> tuple[int, int]:
    """Return parameters and multiply-adds, the latter for an output of ``PAPER_OUTPUT``."""
    height, width = (
        -(-(side // upscaler.scale) // upscaler.multiple) * upscaler.multiple
        for side in PAPER_OUTPUT
    )
    network = upscaler.network
    return count_parameters(network), multiply_adds(network, height, width)


def _model_names(weights: Sequence[Path]) -> list[str]:
    """Name each file by its stem, or by folder and stem where stems repeat."""
    stems = [path.stem for path in weights]
    names = [
        stem if stems.count(stem) == 1 else f"{path.resolve().parent.name}_{stem}"
        for stem, path in zip(stems, weights, strict=True)
    ]
    _refuse_doubles("models", [BICUBIC, *names])
    return names


def _refuse_doubles(what: str, names: Sequence[str]) -> None:
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise LsfdError(f"two {what} have the same name: {', '.join(double)}; rename one of them")


def _picture_writer(folder: Path | None, suffix: str) -> OnImage | None:
    """Return what writes each image into the folder as PNG."""
    if folder is None:
        return None
    # Not with_suffix: a name may have a dot of its own.
    return lambda name, sr: write_image(folder / f"{name}{suffix}.png", sr)
