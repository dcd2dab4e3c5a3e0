"""The memory on which signals of a thread are handled."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ROOM = 64
"""Bytes that hold any system's ``stack_t``."""


def signal_stack() -> bytes | None:
    """Return what the system says of this thread's alternate signal stack; None on Windows."""
    if sys.platform == "win32":
        return None
    stack = ctypes.create_string_buffer(_ROOM)
    ctypes.CDLL(None).sigaltstack(None, stack)
    return stack.raw


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give the thread its signal stack back at the end.

    OpenVINO 2026.4 puts one of its own in its place while it compiles, and may free that one later:
    from then on any signal that Python handles, such as Ctrl-C, would kill the process. Can go when
    OpenVINO restores what it found.
    """
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.create_string_buffer(before, _ROOM), None)
