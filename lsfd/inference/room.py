"""Letting threads wait until there is room for what they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Room:
    """So many bytes, of which threads take some and give them back.

    Whoever wants more than there is in all waits until everything is free, and takes it.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._change = Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Wait for room and take it until the block ends."""
        wanted = min(wanted, self._size)
        with self._change:
            self._change.wait_for(lambda: wanted <= self._free)
            self._free -= wanted
        try:
            yield
        finally:
            with self._change:
                self._free += wanted
                self._change.notify_all()
