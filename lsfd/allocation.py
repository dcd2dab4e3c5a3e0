"""Memory that is freed stays with the process, for the next tensor of that size."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell the C library to keep large blocks that are freed.

    glibc hands them back to the system and asks for them again at the next tensor, and the system
    clears every page: in training on a CPU this costs more than all that is no convolution. A
    process that keeps them holds on to its peak until it ends.

    Returns:
        Whether the C library could be told; only glibc's can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Another C library; TypeError: Windows.
        return False
    settings = {
        _M_MMAP_MAX: 0,  # No block is a mapping of its own, which could not be kept.
        _M_TRIM_THRESHOLD: -1,
        _M_TOP_PAD: _GROW_BY,
        _M_ARENA_MAX: 1,  # The thread of the backward pass takes from what the forward has freed.
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
