"""The size that a picture is to have in the end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lsfd.errors import LsfdError


@dataclass(frozen=True)
class TargetSize:
    """A size of one's own choice, never larger than what the network gives.

    Attributes:
        box: width and height that the picture is fitted into; its proportions stay.
        factor: or: how many times the size of the input.
    """

    box: tuple[int, int] | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            LsfdError: a size or factor is not positive.
        """
        if self.factor is not None and not 0 < self.factor < float("inf"):
            raise LsfdError(f"--to-scale: must be more than 0, not {self.factor:g}")
        if self.box is not None and min(self.box) < 1:
            raise LsfdError(f"--to-size: must be at least 1x1, not {self.box[0]}x{self.box[1]}")

    @classmethod
    def parse(cls, box: str | None, factor: float | None) -> TargetSize | None:
        """Return the size that the options ask for: a text such as ``1920x1080``, or a factor.

        Raises:
            LsfdError: the text is another one, or the numbers are not positive.
        """
        if box is None:
            return None if factor is None else cls(factor=factor)
        numbers = re.fullmatch(r"(\d+)[xX](\d+)", box.strip())
        if numbers is None:
            raise LsfdError(f"--to-size: '{box}' is no WIDTHxHEIGHT; write 1920x1080")
        return cls(box=(int(numbers[1]), int(numbers[2])))

    def of(self, width: int, height: int, scale: int) -> tuple[int, int]:
        """Return width and height for an input that the network makes ``scale`` times as large."""
        factor = float(scale)
        if self.factor is not None:
            factor = min(factor, self.factor)
        if self.box is not None:
            factor = min(factor, self.box[0] / width, self.box[1] / height)
        return max(round(width * factor), 1), max(round(height * factor), 1)
