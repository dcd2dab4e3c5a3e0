"""Scoring the student on whole images during training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lsfd.config.load import LoadedOptions, LoadedTestOptions
from lsfd.config.options import Metric
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.scores import ImageScores, SetScores
from lsfd.evaluation.sets import BenchmarkSet, set_from_folders
from lsfd.imaging.files import write_image
from lsfd.inference.upscaler import NotFiniteError, Upscaler
from lsfd.training.distributed import Processes
from lsfd.training.samples import degradation_of

LOGGER = logging.getLogger("lsfd")

Scores = dict[str, dict[str, float]]
"""Set name -> metric name -> mean score."""


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        scores: the means of each set.
        images: of each set the scores of every image, by its name.
    """

    scores: Scores
    images: dict[str, Scores]


@dataclass(frozen=True)
class Best:
    """The best score so far of the first metric on the first set."""

    value: float
    iteration: int


def validation_sets(loaded: LoadedOptions | LoadedTestOptions) -> list[BenchmarkSet]:
    """Find and check the images of every ``datasets.val*``, and ``datasets.test*`` of a test.

    Raises:
        LsfdError: naming the key of a set that is missing or does not fit.
    """
    sets = []
    for key, section in loaded.options.datasets.validation.items():
        try:
            found = set_from_folders(
                section.name,
                [Path(root) for root in section.dataroot_gt],
                [Path(root) for root in section.dataroot_lq],
                loaded.options.scale,
                degradation_of(section),
            )
            found.check()
            sets.append(found)
        except LsfdError as error:
            raise loaded.error(f"datasets.{key}.dataroot_gt", str(error)) from error
    return sets


def validate(
    network: nn.Module,
    sets: list[BenchmarkSet],
    loaded: LoadedOptions,
    pictures: Path | None = None,
    processes: Processes | None = None,
) -> Validation:
    """Score a network on the validation sets, in fp32 and on 8-bit images as the papers do.

    Several processes share the images out; every one returns what one alone would get.
    A set has none if the network's output is not finite on one of its images, of which is warned:
    a student that went astray may come back.

    Args:
        network: the student; all processes score the first one's.
        sets: what :func:`validation_sets` found, in every process the same.
        loaded: names the metrics and the scale.
        pictures: folder for the upscaled images, ``PICTURES/<set>/<image>.png``; None for none.
        processes: this process among all that validate together; None: it is alone.

    Raises:
        LsfdError: in every process, if one of them cannot read an image or write its picture.
    """
    processes = processes or Processes()
    if processes.distributed:
        # Weights agree after every step, but not what layers count in each process of its own.
        network.load_state_dict(processes.from_first(lambda: _on_cpu(network)))
    upscaler = Upscaler(network, loaded.options.scale, device=next(network.parameters()).device)

    def own_share() -> list[SetScores | str]:
        shares = [each.share(processes.rank, processes.world_size) for each in sets]
        return [_evaluate(upscaler, share, pictures) for share in shares]

    gathered = processes.gather(own_share)
    scores: Scores = {}
    each: dict[str, Scores] = {}
    for whole, parts in zip(sets, zip(*gathered, strict=True), strict=True):
        found = [part for part in parts if isinstance(part, SetScores)]
        if len(found) < len(parts):
            if processes.is_first:
                problem = next(part for part in parts if isinstance(part, str))
                LOGGER.warning("%s gets no score: %s", whole.name, problem)
            continue
        images = {name: its for part in found for name, its in part.images.items()}
        means = SetScores(whole.name, {pair.name: images[pair.name] for pair in whole.pairs})
        metrics = loaded.options.val.metrics
        scores[whole.name] = _named(means, metrics)
        each[whole.name] = {name: _named(its, metrics) for name, its in means.images.items()}
    return Validation(scores, each)


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in network.state_dict().items()}


def _evaluate(upscaler: Upscaler, share: BenchmarkSet, pictures: Path | None) -> SetScores | str:
    """Score the images of a share, and save what became of them; or say why there is no score."""

    def save(name: str, image: NDArray[np.uint8]) -> None:
        assert pictures is not None
        write_image(pictures / share.name / f"{name}.png", image)

    try:
        return evaluate(upscaler, share, upscaler.scale, None if pictures is None else save)
    except NotFiniteError as error:
        return str(error)


def _named(found: SetScores | ImageScores, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return the scores under the option file's names."""
    return {
        name: getattr(
            found,
            metric.type.removeprefix("calculate_") + ("_y" if metric.test_y_channel else "_rgb"),
        )
        for name, metric in metrics.items()
    }


def judge(loaded: LoadedOptions) -> str | None:
    """Return what decides which student is the best: set and metric; None: nothing does."""
    sets = list(loaded.options.datasets.validation.values())
    return f"{sets[0].name}, {next(iter(loaded.options.val.metrics))}" if sets else None


def better(scores: Scores, best: Best | None, loaded: LoadedOptions, iteration: int) -> Best | None:
    """Return the new best if the first metric improved on the first set, otherwise None."""
    name, metric = next(iter(loaded.options.val.metrics.items()))
    first = next(iter(loaded.options.datasets.validation.values())).name
    if first not in scores:
        return None
    value = scores[first][name]
    if best is not None:
        improved = value > best.value if metric.better == "higher" else value < best.value
        if not improved:
            return None
    return Best(value, iteration)
