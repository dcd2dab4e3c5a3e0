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


def rate_factor(train: Train, world_size: int) -> float:
    """Return the factor by which ``train.lr_scaling`` multiplies every learning rate.

    The option file's rates are those for one process that takes a step after each batch of
    ``batch_size_per_gpu``. A step averages the gradients of k = ``world_size`` x ``accumulate``
    such batches; a run over as many samples has 1/k of the steps, and to go as far each has to be
    k times as long. With SGD that takes k times the rate ("linear": Goyal et al., arXiv
    1706.02677). Adam divides by the root of the squared gradient, mostly noise, of which a mean
    has 1/k: its steps grow by sqrt(k) of themselves, and sqrt(k) is left to the rate ("sqrt":
    Malladi et al., arXiv 2205.10287). ``total_iter`` stays what it is.

    Args:
        train: the ``train`` section of the option file.
        world_size: number of processes.
    """
    batches = world_size * train.accumulate
    return {"none": 1.0, "linear": float(batches), "sqrt": math.sqrt(batches)}[train.lr_scaling]


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
