"""Learning rate as a function of the iteration, so that resuming needs no scheduler state."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

from lsfd.config.training import (
    CosineAnnealingLR,
    CosineAnnealingRestartLR,
    MultiStepLR,
    MultiStepRestartLR,
    Scheduler,
    Train,
)
from lsfd.training.phases import Phase


def learning_rate(train: Train, phase: Phase, iteration: int) -> float:
    """Return the learning rate of an iteration.

    Args:
        train: the ``train`` section of the option file.
        phase: the phase that the iteration lies in; the schedule begins with it.
        iteration: counted from 1 to ``total_iter``.

    Returns:
        The rate of the schedule, scaled linearly from 0 during ``warmup_iter``; in a method's
        stage a cosine from the stage's rate to 0.
    """
    base, done = train.optim_g.lr, iteration - phase.first
    if phase.stage is not None:
        base = base if phase.stage.lr is None else phase.stage.lr
        return _cosine(base, 0.0, done / phase.length)
    rate = _scheduled(train.scheduler, base, done, phase.length)
    if done < train.warmup_iter:
        rate *= (done + 1) / train.warmup_iter
    return rate


def _scheduled(scheduler: Scheduler | None, base: float, done: int, total: int) -> float:
    """Return the rate after ``done`` of ``total`` steps, without warm-up."""
    if scheduler is None:
        return base
    if isinstance(scheduler, CosineAnnealingLR):
        return _cosine(base, scheduler.eta_min, done / total)
    if isinstance(scheduler, CosineAnnealingRestartLR):
        ends = list(accumulate(scheduler.periods))
        cycle = min(bisect_right(ends, done), len(ends) - 1)
        period = scheduler.periods[cycle]
        progress = min((done - (ends[cycle] - period)) / period, 1.0)
        height = _cosine(base, scheduler.eta_min, progress) - scheduler.eta_min
        return scheduler.eta_min + scheduler.restart_weights[cycle] * height
    if isinstance(scheduler, MultiStepRestartLR):
        cycle = bisect_right(scheduler.restarts, done) - 1
        start, weight = 0, 1.0
        if cycle >= 0:
            start, weight = scheduler.restarts[cycle], scheduler.restart_weights[cycle]
        passed = sum(start < milestone <= done for milestone in scheduler.milestones)
        return base * weight * scheduler.gamma**passed
    assert isinstance(scheduler, MultiStepLR)
    return base * scheduler.gamma ** bisect_right(scheduler.milestones, done)


def _cosine(high: float, low: float, progress: float) -> float:
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))
