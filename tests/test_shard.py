"""Shares of a list: whole, disjoint, of equal length."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfd.errors import LsfdError
from lsfd.shard import Shard


@given(st.integers(0, 60), st.integers(1, 20))
def test_every_item_is_in_one_share(length: int, count: int) -> None:
    items = list(range(length))
    shards = [Shard(number, count) for number in range(1, count + 1)]
    taken = [shard.take(items) for shard in shards]
    blocks = [shard.block(items) for shard in shards]
    assert sorted(chain(*taken)) == items
    assert list(chain(*blocks)) == items
    for shares in (taken, blocks):
        lengths = {len(share) for share in shares}
        assert max(lengths) - min(lengths) <= 1


def test_neighbours() -> None:
    assert Shard.parse("2/3").take("abcdefg") == ["b", "e"]
    assert Shard.parse("2/3").block("abcdefg") == ["c", "d"]
    assert str(Shard.parse(" 2/3 ")) == "2/3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "'2' is no share; write 2/8"),
        ("a/b", "'a/b' is no share"),
        ("-1/2", "'-1/2' is no share"),
        ("0/8", "there is no share 0 of 8; they are counted from 1/N"),
        ("9/8", "there is no share 9 of 8"),
        ("1/0", "there is no share 1 of 0"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        Shard.parse(text)
