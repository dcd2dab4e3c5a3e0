"""Scoring the student on whole images during training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lsfd.config.load import LoadedOptions, LoadedTestOptions
from lsfd.config.options import Metric
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.scores import SetScores
from lsfd.evaluation.sets import BenchmarkSet, set_from_folders
from lsfd.imaging.files import write_image
from lsfd.inference.upscaler import Upscaler
from lsfd.training.samples import degradation_of

Scores = dict[str, dict[str, float]]
"""Set name -> metric name -> mean score."""


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
    for name, metric in loaded.options.val.metrics.items():
        if metric.crop_border not in (None, loaded.options.scale):
            raise loaded.error(
                f"val.metrics.{name}.crop_border",
                f"scores shave as many pixels as the scale, {loaded.options.scale}, as the papers "
                "do; give that, or leave it out",
            )
    return sets


def validate(
    network: nn.Module,
    sets: list[BenchmarkSet],
    loaded: LoadedOptions,
    pictures: Path | None = None,
) -> Scores:
    """Score a network on the validation sets, in fp32 and on 8-bit images as the papers do.

    Args:
        network: the student.
        sets: what :func:`validation_sets` found.
        loaded: names the metrics and the scale.
        pictures: folder for the upscaled images, ``PICTURES/<set>/<image>.png``; None for none.
    """
    scale = loaded.options.scale
    upscaler = Upscaler(network, scale, device=next(network.parameters()).device)
    scores: Scores = {}
    for benchmark_set in sets:
        on_image = None
        if pictures is not None:
            folder = pictures / benchmark_set.name

            def on_image(name: str, image: object, folder: Path = folder) -> None:
                write_image(folder / f"{name}.png", image)  # type: ignore[arg-type]

        means = evaluate(upscaler, benchmark_set, scale, on_image)
        scores[benchmark_set.name] = _named(means, loaded.options.val.metrics)
    return scores


def _named(means: SetScores, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return the scores under the option file's names."""
    return {
        name: getattr(
            means,
            metric.type.removeprefix("calculate_") + ("_y" if metric.test_y_channel else "_rgb"),
        )
        for name, metric in metrics.items()
    }


def better(scores: Scores, best: Best | None, loaded: LoadedOptions, iteration: int) -> Best | None:
    """Return the new best if the first metric improved on the first set, otherwise None."""
    name, metric = next(iter(loaded.options.val.metrics.items()))
    value = next(iter(scores.values()))[name]
    if best is not None:
        improved = value > best.value if metric.better == "higher" else value < best.value
        if not improved:
            return None
    return Best(value, iteration)
