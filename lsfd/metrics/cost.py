"""What a network costs: parameters, multiply-adds, time."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Key = TypeVar("Key")

_WARM_UP_RUNS = 2


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, height: int, width: int) -> int:
    """Return the multiply-adds of convolutions and matrix products for one image.

    Papers state them for an output of 1280 x 720 pixels. Nothing is computed: only shapes pass
    through the network, so even a large one is measured at once.

    Args:
        module: takes 1 x 3 x H x W.
        height: of the low-resolution input, in pixels.
        width: of the low-resolution input, in pixels.
    """
    shapes_only = copy.deepcopy(module).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shapes_only(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops() // 2


def latency(
    module: nn.Module,
    height: int,
    width: int,
    device: torch.device,
    repeats: int = 10,
    channels: int = 3,
) -> float:
    """Return the median time of one forward pass in seconds, in float32.

    Moves the module to the device and leaves it in eval mode. Warm-up runs come first.

    Args:
        module: takes 1 x channels x H x W.
        height: of the low-resolution input, in pixels.
        width: of the low-resolution input, in pixels.
        device: where to run.
        repeats: how many runs to take the median of.
        channels: of the input.
    """
    module = module.to(device).eval()
    lq = torch.rand(1, channels, height, width, device=device)
    seconds = []
    with torch.no_grad():
        for _ in range(_WARM_UP_RUNS + repeats):
            start = time.perf_counter()
            module(lq)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_WARM_UP_RUNS:])


def take_turns(
    actions: Mapping[Key, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Do every action once a round; return the seconds that each took in each round.

    They take turns, so that whatever else the machine does meets all alike.

    Args:
        actions: what is timed.
        rounds: how often each is timed.
        warm_up: rounds before those that count.
        clock: tells seconds; ``time.process_time`` leaves out what other programs take.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in actions}
    for number in range(-warm_up, rounds):
        for key, action in actions.items():
            start = clock()
            action()
            if number >= 0:
                seconds[key].append(clock() - start)
    return seconds
