"""What a network costs: parameters, multiply-adds, time."""

from __future__ import annotations

import copy
import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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
