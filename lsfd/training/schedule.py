"""Learning rate as a function of the iteration, so that resuming needs no scheduler state."""

from __future__ import annotations

import math
from bisect import bisect_right

from lsfd.config.options import (
    CosineAnnealingLR,
    CosineAnnealingRestartLR,
    MultiStepLR,
    MultiStepRestartLR,
    Scheduler,
    TrainOptions,
)


def learning_rate(train: TrainOptions, iteration: int) -> float:
    """Return the learning rate of an iteration.

    Args:
        train: the ``train`` section of the option file.
        iteration: counted from 1 to ``total_iter``.

    Returns:
        The rate of the schedule, scaled linearly from 0 during ``warmup_iter``.
    """
    base = train.optim_g.lr
    rate = _scheduled(train.scheduler, base, iteration - 1, train.total_iter)
    if iteration <= train.warmup_iter:
        rate *= iteration / train.warmup_iter
    return rate


def _scheduled(scheduler: Scheduler | None, base: float, done: int, total: int) -> float:
    """Return the rate after ``done`` of ``total`` steps, without warm-up."""
    if scheduler is None:
        return base
    if isinstance(scheduler, CosineAnnealingLR):
        return _cosine(base, scheduler.eta_min, done / total)
    if isinstance(scheduler, CosineAnnealingRestartLR):
        ends = [sum(scheduler.periods[: k + 1]) for k in range(len(scheduler.periods))]
        cycle = min(bisect_right(ends, done), len(ends) - 1)
        period = scheduler.periods[cycle]
        start = ends[cycle] - period
        weight = (scheduler.restart_weights or [1.0] * len(ends))[cycle]
        progress = min((done - start) / period, 1.0)
        return scheduler.eta_min + weight * (_cosine(base, scheduler.eta_min, progress) - scheduler.eta_min)
    if isinstance(scheduler, MultiStepRestartLR):
        restarts = [0, *scheduler.restarts]
        cycle = bisect_right(restarts, done) - 1
        weight = (scheduler.restart_weights or [1.0] * len(restarts))[cycle]
        passed = sum(restarts[cycle] < step <= done for step in scheduler.milestones)
        return base * weight * scheduler.gamma**passed
    assert isinstance(scheduler, MultiStepLR)
    return base * scheduler.gamma ** bisect_right(scheduler.milestones, done)


def _cosine(high: float, low: float, progress: float) -> float:
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))
