"""The multiple-choice knapsack: equal to trying everything, within the budget, monotone."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfd.compression.knapsack import Item, cheapest, choose

WHOLE = st.builds(Item, st.integers(0, 20), st.integers(0, 20).map(float))
REAL = st.builds(Item, st.floats(0, 10, allow_subnormal=False), st.floats(0, 1))


def groups(items: st.SearchStrategy[Item]) -> st.SearchStrategy[list[list[Item]]]:
    return st.lists(st.lists(items, min_size=1, max_size=4), min_size=1, max_size=4)


def sums(items: list[list[Item]], picks: list[int] | tuple[int, ...]) -> tuple[float, float]:
    """Cost and error, summed from the first group to the last."""
    cost, error = 0.0, 0.0
    for group, pick in zip(items, picks, strict=True):
        cost, error = cost + group[pick].cost, error + group[pick].error
    return cost, error


def brute_force(items: list[list[Item]], budget: float) -> tuple[float, float] | None:
    """Least error within the budget, then least cost: (error, cost)."""
    every = (sums(items, picks) for picks in product(*(range(len(group)) for group in items)))
    return min(((error, cost) for cost, error in every if cost <= budget), default=None)


@given(groups(WHOLE) | groups(REAL), st.integers(0, 60) | st.floats(0, 60))
def test_it_equals_trying_everything(items: list[list[Item]], budget: float) -> None:
    picks, expected = choose(items, budget), brute_force(items, budget)
    if expected is None:
        assert picks is None
    else:
        assert picks is not None
        cost, error = sums(items, picks)
        assert cost <= budget
        assert (error, cost) == expected


@given(groups(REAL), st.floats(0, 60), st.floats(0, 60))
def test_a_looser_budget_is_never_worse(
    items: list[list[Item]], first: float, second: float
) -> None:
    tight, loose = (choose(items, budget) for budget in sorted((first, second)))
    if tight is not None:
        assert loose is not None
        assert sums(items, loose)[1] <= sums(items, tight)[1]


@given(groups(REAL))
def test_the_cheapest_choice_is_the_smallest_budget_that_can_be_kept(
    items: list[list[Item]],
) -> None:
    cost, error = sums(items, cheapest(items))
    picks = choose(items, cost)
    assert picks is not None and sums(items, picks)[1] <= error
    if cost:
        assert choose(items, cost * (1 - 1e-9)) is None


def test_many_groups_are_no_trouble() -> None:
    # 10^20 choices; the costs are a few hundred different sums.
    group = [Item(cost, 1 / (1 + cost)) for cost in range(10)]
    picks = choose([group] * 20, 100)
    assert picks == [5] * 20  # The errors are convex: equal shares are best.


@pytest.mark.parametrize("budget", [4, 4.5])
def test_equally_good_choices_give_the_cheaper_one(budget: float) -> None:
    assert choose([[Item(2, 0.5), Item(1, 0.5)], [Item(3, 0.0), Item(1, 1.0)]], budget) == [1, 0]
