"""One small deterministic forward pass, to learn what a network does to an image's size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lsfd.networks.opaque import OpaqueNetwork

TRIAL_SIZE = 24
"""Height and width of the trial input in pixels, unless the network's windows need a multiple."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put ``network`` in eval mode without gradients; every module's own mode is put back after."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def size_multiple(network: nn.Module) -> int:
    """Return what height and width must be a multiple of: the attention windows, otherwise 1."""
    if isinstance(network, OpaqueNetwork):
        return network.multiple
    windows = (getattr(module, "window_size", 1) for module in network.modules())
    return math.lcm(*(size for size in windows if isinstance(size, int) and size > 0))


def trial_input(network: nn.Module) -> Tensor:
    """Return a mid-grey 1 x 3 x 24 x 24 image on the network's device and in its dtype.

    Nothing random is drawn, so a trial leaves a run's random state as it was. Window attention
    (SwinIR) works on multiples of its window: the side is then the next common multiple.
    """
    multiple = size_multiple(network)
    side = -(-TRIAL_SIZE // multiple) * multiple
    parameter = next(network.parameters(), torch.empty(0))
    return torch.full((1, 3, side, side), 0.5, device=parameter.device, dtype=parameter.dtype)


def on_lr_grid(feature: Tensor, image: Tensor) -> bool:
    """Tell whether ``feature`` is N x C x h x w for an ``image`` of N x 3 x h x w."""
    return (
        feature.dim() == 4
        and feature.shape[0] == image.shape[0]
        and feature.shape[2:] == image.shape[2:]
    )
