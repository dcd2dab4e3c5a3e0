"""How much memory there is, how much a network takes, and what it looks like when it runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.trial import evaluating, trial_input

CPU_LIMIT = 768 << 20
"""Bytes that a network may take on a CPU: larger tiles would hardly be faster."""

_AT_ONCE = 2
"""How many times what its largest layer reads and writes a network needs: for what is kept beside
for a sum, and for a convolution's own copies. EDSR takes 1.4 times."""

_OUTPUTS = 6
"""How many copies of its output come and go on the way to pixels."""

_SCARCE = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min((available for available in (_system(), _control_group()) if available), default=0)


def budget(device: torch.device) -> int:
    """Return the bytes that a network may take: half of what is free, on a CPU ``CPU_LIMIT``."""
    half = free_memory(device) // 2
    return half if device.type == "cuda" else min(half or CPU_LIMIT, CPU_LIMIT)


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
    return (_AT_ONCE * largest + _OUTPUTS * output) // (lq.shape[2] * lq.shape[3])


def is_scarce(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        phrase in str(error).lower() for phrase in _SCARCE
    )


@contextmanager
def noticing_scarcity(found: list[str]) -> Iterator[None]:
    """Add what an error says about too little memory to ``found`` instead of raising it.

    The error itself is let go, and with it what its frames hold.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_scarce(error):
            raise
        found.append(str(error).split("\n")[0])


def _sizes(values: Any) -> Iterator[int]:
    if isinstance(values, Tensor):
        yield values.numel() * values.element_size()
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _sizes(value)


def _system() -> int | None:
    """What Linux says can be had without swapping; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def _control_group() -> int | None:
    """What a container may still take (cgroup 2, then 1); None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        folder = Path("/sys/fs/cgroup")
        try:
            return max(int((folder / limit).read_text()) - int((folder / used).read_text()), 1)
        except (OSError, ValueError):  # Not there, or "max".
            continue
    return None
