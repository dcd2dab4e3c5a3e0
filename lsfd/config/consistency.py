"""Rules between several fields of an option file; those that need no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lsfd.config.base import Component
from lsfd.config.datasets import TrainSet, ValidationSet
from lsfd.config.options import AUTO_TYPE, Options
from lsfd.config.testing import TestOptions
from lsfd.config.training import CosineAnnealingRestartLR, MultiStepRestartLR

Problem = tuple[str, str]
"""A key path and what is wrong with it."""


def problems(options: Options) -> Iterator[Problem]:
    """Yield every rule that ``options`` breaks, as key path and message."""
    yield from _size(options)
    yield from _names(options.datasets.validation)
    yield from _degradations({"train": options.datasets.train, **options.datasets.validation})
    yield from _scales(options)
    yield from _teachers(options)
    yield from _borders(options)
    yield from _losses(options)
    yield from _windows(options)
    yield from _schedule(options)


def test_problems(options: TestOptions) -> Iterator[Problem]:
    """Yield every rule that the options of a test break."""
    yield from _names(options.datasets.validation)
    yield from _degradations(options.datasets.validation)
    yield from _differing_scales({"network_g": options.network_g}, options.scale)
    yield from _borders(options)


def _size(options: Options) -> Iterator[Problem]:
    size = options.datasets.train.gt_size
    if size % options.scale:
        yield "datasets.train.gt_size", f"{size} is not a multiple of scale {options.scale}"


def _names(sets: Mapping[str, ValidationSet]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for key, section in sets.items():
        other = first.setdefault(section.name, key)
        if other != key:
            yield (
                f"datasets.{key}.name",
                f"'{section.name}' is the name of datasets.{other}, too, and scores and pictures "
                "are kept by name; give another one",
            )


def _degradations(sets: Mapping[str, TrainSet | ValidationSet]) -> Iterator[Problem]:
    for name, section in sets.items():
        key = f"datasets.{name}.degradation"
        if section.degradation is None:
            continue
        if section.dataroot_lq:
            yield key, "images from dataroot_lq are taken as they are; give one of the two"
        if not section.degradation.model_dump(exclude_none=True):
            yield key, "names no degradation; give blur, noise or jpeg, or remove it"


def _scales(options: Options) -> Iterator[Problem]:
    teachers = {f"network_t.{i}": teacher for i, teacher in enumerate(options.network_t)}
    peers = {f"network_p.{i}": peer for i, peer in enumerate(options.network_p)}
    networks = {"network_g": options.network_g, **teachers, **peers}
    yield from _differing_scales(networks, options.scale)


def _differing_scales(networks: dict[str, Component], scale: int) -> Iterator[Problem]:
    for path, network in networks.items():
        for key in ("upscale", "scale"):  # BasicSR's architectures use either name.
            value = network.arguments.get(key, scale)
            if value != scale:
                yield f"{path}.{key}", f"{value} differs from scale {scale} of the run"


def _teachers(options: Options) -> Iterator[Problem]:
    teachers, checkpoints = len(options.network_t), len(options.path.pretrain_network_t)
    if teachers != checkpoints:
        yield (
            "path.pretrain_network_t",
            f"{checkpoints} checkpoint(s) for {teachers} teacher(s) in network_t; "
            "give one checkpoint for each teacher",
        )
    for index, teacher in enumerate(options.network_t):
        if teacher.type == AUTO_TYPE and teacher.arguments:
            key = next(iter(teacher.arguments))
            yield (
                f"network_t.{index}.{key}",
                "type auto reads the architecture from the checkpoint; "
                "remove this, or name the architecture in type",
            )


def _borders(options: Options | TestOptions) -> Iterator[Problem]:
    for name, metric in options.val.metrics.items():
        if metric.crop_border not in (None, options.scale):
            yield (
                f"val.metrics.{name}.crop_border",
                f"scores shave as many pixels as the scale, {options.scale}, as the papers do; "
                "give that, or leave it out",
            )


def _losses(options: Options) -> Iterator[Problem]:
    if options.network_t and not options.distillers:
        yield "network_t", "nothing learns from the teacher; add distillers, or remove network_t"
    if options.train.pixel_opt is None and not options.distillers:
        yield "train.pixel_opt", "without it and without distillers there is no loss to minimise"


def _windows(options: Options) -> Iterator[Problem]:
    for index, distiller in enumerate(options.distillers):
        if distiller.end is not None and distiller.end < distiller.start:
            yield f"distillers.{index}.end", f"{distiller.end} lies before start {distiller.start}"


def _schedule(options: Options) -> Iterator[Problem]:
    scheduler = options.train.scheduler
    if isinstance(scheduler, CosineAnnealingRestartLR):
        parts = len(scheduler.periods)
        if sum(scheduler.periods) < options.train.total_iter:
            yield (
                "train.scheduler.periods",
                f"end at {sum(scheduler.periods)}, before total_iter {options.train.total_iter}",
            )
    elif isinstance(scheduler, MultiStepRestartLR):
        parts = len(scheduler.restarts)
    else:
        return
    given = len(scheduler.restart_weights)
    if given != parts:
        yield "train.scheduler.restart_weights", f"{given} weight(s) for {parts} start(s)"
