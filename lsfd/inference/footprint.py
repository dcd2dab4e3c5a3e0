"""How much memory a network takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.trial import evaluating, trial_input

AT_ONCE = 2
"""How many times what its largest layer reads and writes a network needs: for what is kept beside
for a sum, and for a convolution's own copies. EDSR takes 1.4 times."""

OUTPUTS = 6
"""How many copies of its output come and go on the way to pixels."""


def bytes_per_pixel(network: nn.Module) -> int:
    """Return an estimate of the memory that a network takes for each pixel of its input."""
    if isinstance(network, OpaqueNetwork):
        return network.bytes_per_pixel
    largest = 0

    def look(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(_sizes(given)) + sum(_sizes(result)))

    lq = trial_input(network).float()
    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with evaluating(network):
            output = sum(_sizes(network(lq)))
    finally:
        for hook in hooks:
            hook.remove()
    return (AT_ONCE * largest + OUTPUTS * output) // (lq.shape[2] * lq.shape[3])


def _sizes(values: Any) -> Iterator[int]:
    if isinstance(values, Tensor):
        yield values.numel() * values.element_size()
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _sizes(value)
