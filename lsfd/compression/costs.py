"""What parts, candidates and whole networks cost, in the unit of a budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lsfd.compression.budget import Budget
from lsfd.compression.candidates import Candidate
from lsfd.compression.parts import Part, Shape, Split
from lsfd.metrics.cost import count_parameters, latency, multiply_adds

MILLISECONDS = 1000


def network_cost(network: nn.Module, scale: int, budget: Budget, device: torch.device) -> float:
    """Return what a whole network costs: counted, or measured on this machine."""
    if budget.kind == "params":
        return count_parameters(network)
    height, width = budget.input_size(scale)
    if budget.kind == "madds":
        return multiply_adds(network, height, width)
    return MILLISECONDS * latency(network, height, width, device)


class Costs:
    """Costs of a teacher's parts under one budget; latencies are measured on this machine."""

    def __init__(self, split: Split, budget: Budget, device: torch.device) -> None:
        self._split = split
        self._budget = budget
        self._device = device
        self._size = budget.input_size(split.scale)

    def fixed(self) -> float:
        """Return what the layers cost that belong to no part."""
        if self._budget.kind == "params":
            return self._split.fixed_parameters
        if self._budget.kind == "madds":
            return self._split.fixed_multiply_adds * self._pixels
        network = self._split.network
        return self._milliseconds(nn.Sequential(network.conv_first, network.conv_after_body))

    def of_candidates(self, part: Part, candidates: Sequence[Candidate]) -> list[float]:
        """Return what each candidate of a part costs."""
        return [self._of(part, candidate.shape, candidate.module) for candidate in candidates]

    def _of(self, part: Part, shape: Shape, module: nn.Module) -> float:
        if self._budget.kind == "params":
            return part.parameters(shape)
        if self._budget.kind == "madds":
            return part.multiply_adds(shape) * self._pixels
        if not list(module.parameters()):
            return 0.0
        return self._milliseconds(module, self._split.options["num_feat"])

    def _milliseconds(self, module: nn.Module, channels: int = 3) -> float:
        height, width = self._size
        return MILLISECONDS * latency(module, height, width, self._device, channels=channels)

    @property
    def _pixels(self) -> int:
        height, width = self._size
        return height * width
