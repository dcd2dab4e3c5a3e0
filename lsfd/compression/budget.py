"""What a compressed network may cost, as written on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from lsfd.errors import LsfdError, nearest
from lsfd.evaluation.cost import PAPER_OUTPUT

Kind = Literal["params", "madds", "latency_ms"]

_EXAMPLES = (
    "write params=300k, madds=12G, madds=12G@1280x720 or latency_ms=25@640x360 "
    "(@: size of the output)"
)
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS = {"params": "parameters", "madds": "multiply-adds", "latency_ms": "ms"}
_LARGEST_SIDE = 1 << 15


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost.

    Attributes:
        kind: parameters; multiply-adds, or the milliseconds, for one image.
        limit: how many.
        width: of that image when it is enlarged, in pixels.
        height: the same.
    """

    kind: Kind
    limit: float
    width: int = PAPER_OUTPUT[1]
    height: int = PAPER_OUTPUT[0]

    def __str__(self) -> str:
        size = "" if self.kind == "params" else f"@{self.width}x{self.height}"
        return f"{self.kind}={self.limit:.12g}{size}"

    @property
    def file_name(self) -> str:
        """A name for the results under this budget."""
        return str(self).replace("=", "_").replace("@", "_").replace("+", "")

    def describe(self, cost: float) -> str:
        """Return a cost in words."""
        number = f"{cost:,.2f}" if self.kind == "latency_ms" else f"{cost:,.0f}"
        size = "" if self.kind == "params" else f" for {self.width}x{self.height}"
        return f"{number} {_UNITS[self.kind]}{size}"

    def input_size(self, scale: int) -> tuple[int, int]:
        """Return height and width of the low-resolution image.

        Raises:
            LsfdError: the image is smaller than one pixel of it.
        """
        height, width = self.height // scale, self.width // scale
        if not (height and width):
            raise LsfdError(f"--budget {self}: the output must be {scale} x {scale} or larger")
        return height, width


def parse_budget(text: str) -> Budget:
    """Read a budget such as ``params=300k`` or ``latency_ms=25@640x360``.

    Raises:
        LsfdError: it is none; the message shows how to write one.
    """
    kind, equals, rest = text.strip().partition("=")
    if not equals:
        raise LsfdError(f"--budget {text}: has no '='; {_EXAMPLES}")
    known = get_args(Kind)
    if kind not in known:
        raise LsfdError(f"--budget {text}: unknown kind '{kind}'{nearest(kind, known)}")
    number, at, size = rest.partition("@")
    limit = _number(number, text)
    if not at:
        return Budget(kind, limit)  # type: ignore[arg-type]
    if kind == "params":
        raise LsfdError(f"--budget {text}: parameters do not depend on a size; leave out '@{size}'")
    return Budget(kind, limit, *_size(size, text))  # type: ignore[arg-type]


def _number(number: str, text: str) -> float:
    """Read ``300k``; decimal, so that 0.3M is 300000 and not less."""
    match = re.fullmatch(r"(.*?)([kKMGT]?)", number.strip())
    assert match is not None
    try:
        value = Decimal(match[1]) * _FACTORS[match[2]]
    except InvalidOperation:
        raise LsfdError(f"--budget {text}: '{number}' is no number; {_EXAMPLES}") from None
    if not value.is_finite() or value <= 0:
        raise LsfdError(f"--budget {text}: must be above 0 and finite; {_EXAMPLES}")
    return float(value)


def _size(size: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
    if match is None or max(int(match[1]), int(match[2])) > _LARGEST_SIDE:
        raise LsfdError(f"--budget {text}: '{size}' is no size; {_EXAMPLES}")
    return int(match[1]), int(match[2])
