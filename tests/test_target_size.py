from __future__ import annotations

import pytest

from lsfd.errors import LsfdError
from lsfd.imaging.target_size import TargetSize


@pytest.mark.parametrize(
    ("box", "factor", "expected"),
    [
        ("1920x1080", None, (1440, 1080)),
        ("100X1080", None, (100, 75)),
        ("9999x9999", None, (1600, 1200)),  # Never more than the network gives.
        (None, 2.5, (1000, 750)),
        (None, 0.5, (200, 150)),
        (None, 6.0, (1600, 1200)),
    ],
)
def test_sizes(box: str | None, factor: float | None, expected: tuple[int, int]) -> None:
    size = TargetSize.parse(box, factor)
    assert size is not None
    assert size.of(400, 300, 4) == expected


def test_no_side_vanishes() -> None:
    size = TargetSize.parse("10x10", None)
    assert size is not None
    assert size.of(10_000, 1, 4) == (10, 1)


def test_nothing_asked_for() -> None:
    assert TargetSize.parse(None, None) is None


@pytest.mark.parametrize(
    ("box", "factor", "message"),
    [
        ("1920", None, "'1920' is no WIDTHxHEIGHT"),
        ("0x5", None, "at least 1x1, not 0x5"),
        (None, 0.0, "more than 0, not 0"),
        (None, float("inf"), "more than 0, not inf"),
        (None, float("nan"), "more than 0, not nan"),
    ],
)
def test_mistakes(box: str | None, factor: float | None, message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        TargetSize.parse(box, factor)
