"""One share of work that is divided among several processes, such as those of a job array."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lsfd.errors import LsfdError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Share ``number`` of ``count``.

    The shares of a list differ in length by one item at most, and every item is in exactly one of
    them; where there are more shares than items, some are empty.

    Attributes:
        number: which share, counted from 1.
        count: how many there are.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            LsfdError: there is no such share.
        """
        if not 1 <= self.number <= self.count:
            raise LsfdError(
                f"--shard: there is no share {self.number} of {self.count}; they are counted from "
                "1/N to N/N (a Slurm array: --array=1-N)"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the share that a text such as ``2/8`` names.

        Raises:
            LsfdError: it names none.
        """
        numbers = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
        if numbers is None:
            raise LsfdError(f"--shard: '{text}' is no share; write 2/8 for the second of eight")
        return cls(int(numbers[1]), int(numbers[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def take(self, items: Sequence[T]) -> list[T]:
        """Return every ``count``-th item: what lies side by side goes to different shares."""
        return list(items[self.number - 1 :: self.count])

    def block(self, items: Sequence[T]) -> list[T]:
        """Return one piece of the list: what lies side by side stays together."""
        start, end = (part * len(items) // self.count for part in (self.number - 1, self.number))
        return list(items[start:end])
