"""Measuring upscalers on benchmark sets as the papers do."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from lsfd.errors import LsfdError
from lsfd.evaluation.cost import (
    Cost,
    Upscale,
    bytes_per_megapixel,
    paper_input,
    seconds_per_megapixel,
)
from lsfd.evaluation.report import BenchmarkReport, BenchmarkRow
from lsfd.evaluation.scores import Distance, ImageScores, SetScores
from lsfd.evaluation.sets import BenchmarkSet, find_set
from lsfd.imaging import resize
from lsfd.imaging.files import write_image
from lsfd.inference.networks import open_network
from lsfd.inference.upscaler import NotFiniteError, Upscaler
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.metrics.lpips import Lpips
from lsfd.networks.build import build_network
from lsfd.networks.card import StudentCard
from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.ready import find_weights
from lsfd.networks.student_file import load_any
from lsfd.networks.trial import size_multiple
from lsfd.terminal import visible

OnImage = Callable[[str, NDArray[np.uint8]], None]
"""Is given the name and the super-resolved image of each pair."""

BICUBIC = "bicubic"


def bicubic(scale: int) -> Upscale:
    """Return the baseline of every paper: MATLAB's bicubic enlargement."""
    return partial(resize.upscale, scale=scale)


def evaluate(
    upscale: Upscale,
    benchmark_set: BenchmarkSet,
    scale: int,
    on_image: OnImage | None = None,
    distance: Distance | None = None,
) -> SetScores:
    """Score an upscaler on a set, with a border of ``scale`` pixels left out.

    While the next image is computed, those before are scored on the other cores.

    Args:
        upscale: turns an input into an image ``scale`` times as large.
        benchmark_set: the pairs, at the same scale.
        scale: the factor.
        on_image: called with each name and super-resolved image.
        distance: LPIPS, or None to leave it out.

    Raises:
        LsfdError: the set has another scale, a file cannot be read, or an image cannot be scored;
            :class:`~lsfd.inference.upscaler.NotFiniteError`: NaN or infinity came of one.
    """
    if benchmark_set.scale != scale:
        raise LsfdError(
            f"the set {benchmark_set.name} was made for x{benchmark_set.scale}, not x{scale}"
        )
    cores = os.cpu_count() or 1
    images: dict[str, ImageScores] = {}
    waiting: deque[tuple[str, Future[ImageScores]]] = deque()

    def finish(first: int) -> None:
        """Take scores until only so many images are left waiting."""
        while len(waiting) > first:
            name, future = waiting.popleft()
            try:
                images[name] = future.result()
            except LsfdError as error:
                raise LsfdError(f"{benchmark_set.name}/{name}: {error}") from error

    with ThreadPoolExecutor(cores, "score") as pool:
        what = visible(benchmark_set.name)
        for name, lq, hr in tqdm(benchmark_set, what, leave=False, disable=None):
            try:
                sr = upscale(lq)
            except NotFiniteError as error:
                raise NotFiniteError(f"{benchmark_set.name}/{name}: {error}") from error
            waiting.append((name, pool.submit(ImageScores.of, sr, hr, scale, distance)))
            if on_image is not None:
                on_image(name, sr)
            finish(2 * cores)  # Waiting images lie in memory.
        finish(0)
    return SetScores(benchmark_set.name, images)


def benchmark(
    weights: Sequence[str | Path],
    sets: Sequence[str],
    scale: int,
    *,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    tile: int | None = None,
    pictures: Path | None = None,
    runs: int = 0,
) -> BenchmarkReport:
    """Score bicubic enlargement and trained networks on sets by name.

    Args:
        weights: files that describe themselves, or names of ready students.
        sets: names or folders, see :func:`lsfd.evaluation.sets.find_set`.
        scale: the factor.
        root: where the sets lie.
        device: and the rest: see :func:`benchmark_sets`.
        precision: see there.
        tile: see there.
        pictures: see there.
        runs: see there.

    Raises:
        LsfdError: a set or a name is not found, and as :func:`benchmark_sets`.
    """
    return benchmark_sets(
        [find_weights(each) for each in weights],
        [find_set(name, root, scale) for name in sets],
        scale,
        device=device,
        precision=precision,
        tile=tile,
        pictures=pictures,
        runs=runs,
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
    runs: int = 0,
) -> BenchmarkReport:
    """Score bicubic enlargement and trained networks.

    All networks are loaded before the first image is computed, so that a mistake shows at once.
    LPIPS is among the scores where the weights of its backbone are there.

    Args:
        weights: files that :func:`lsfd.inference.networks.open_network` reads.
        sets: what to score on.
        scale: the factor of networks and sets.
        options: the networks' BasicSR options, for files that do not describe themselves.
        key: which part of such a file holds the weights; None: found by itself.
        device: as for :class:`lsfd.inference.upscaler.Upscaler`.
        precision: as for ``Upscaler``.
        tile: as for ``Upscaler``.
        pictures: folder for the images, ``PICTURES/<set>/<model>/<name>.png``; None for none.
        suffix: put behind their names.
        runs: how often to time each network, which is done before scoring, as memory is measured;
            0: neither.

    Raises:
        LsfdError: a file cannot be loaded or enlarges by another factor, two models or sets have
            one name, and as :func:`evaluate`.
    """
    if runs < 0:
        raise LsfdError(f"runs must be 0 or more, not {runs}")
    _refuse_doubles("sets", [each.name for each in sets])
    names = _model_names(weights)
    how = [(path, scale, options, key, device, precision, tile) for path in weights]
    opened = [_open(path, scale, options, key) for path in weights]
    upscalers = {
        name: Upscaler(network, scale, device, precision, tile)
        for name, (network, _) in zip(names, opened, strict=True)
    }
    models: dict[str, Upscale] = {BICUBIC: bicubic(scale), **upscalers}
    seconds = seconds_per_megapixel(models, scale, runs) if runs else {}
    costs = {BICUBIC: Cost(0, 0, seconds.get(BICUBIC))}
    for name, each, (network, card) in zip(names, how, opened, strict=True):
        memory = None
        if runs:
            device_used = upscalers[name].device
            memory = bytes_per_megapixel(load_upscaler, each, scale, device_used)
        costs[name] = Cost(*_size(network, card), seconds.get(name), memory)
    distance = Lpips.if_there(upscalers[names[-1]].device if names else "cpu")
    rows = []
    for name, upscale in models.items():
        scores = _score(name, upscale, sets, pictures, suffix, distance)
        rows.append(BenchmarkRow(name, costs[name], scores))
    return BenchmarkReport(scale, tuple(rows))


def load_upscaler(
    path: Path,
    scale: int,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    tile: int | None = None,
) -> Upscaler:
    """Return a network from a file, ready to be measured; see :func:`benchmark_sets`.

    Raises:
        LsfdError: it cannot be loaded, or enlarges by another factor.
    """
    network, _ = _open(path, scale, options, key)
    return Upscaler(network, scale, device, precision, tile)


def _open(
    path: Path, scale: int, options: Mapping[str, Any] | None, key: str | None
) -> tuple[nn.Module, StudentCard]:
    """Return a network that enlarges by a scale, and its card."""
    network, card = open_network(path) if options is None else load_any(path, options, key)
    if card.scale != scale:
        raise LsfdError(f"{path} enlarges x{card.scale}, but the benchmark is for x{scale}")
    return network, card


def _score(
    model: str,
    upscale: Upscale,
    sets: Sequence[BenchmarkSet],
    pictures: Path | None,
    suffix: str,
    distance: Distance | None,
) -> tuple[SetScores, ...]:
    """Score one model on all sets and write its images where they are wanted."""
    scores = []
    for each in tqdm(sets, visible(model), disable=None):
        folder = None if pictures is None else pictures / each.name / model
        writer = _picture_writer(folder, suffix)
        scores.append(evaluate(upscale, each, each.scale, writer, distance))
    return tuple(scores)


def _size(network: nn.Module, card: StudentCard) -> tuple[int | None, int | None]:
    """Return parameters and multiply-adds, the latter for an output of 1280 x 720 pixels.

    An exported file counts as the network that it was made of.
    """
    if isinstance(network, OpaqueNetwork):
        try:
            network = build_network(card.architecture)
        except LsfdError:  # Somebody else's: it does not say what it is.
            return None, None
    height, width = paper_input(card.scale, size_multiple(network))
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
