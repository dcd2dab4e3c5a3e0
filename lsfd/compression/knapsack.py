"""The multiple-choice knapsack, solved exactly: one item of each group, within a budget.

    minimise sum_g error(g, k_g)   subject to   sum_g cost(g, k_g) <= budget,   over k_1 .. k_G

By dynamic programming over the groups: of all choices for the first g groups those are kept that no
other one beats in both cost and error (the Pareto front). Costs may be any real numbers; there are
at most as many choices on a front as there are different sums of costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """Something to choose.

    Attributes:
        cost: 0 or more.
        error: any finite number.
    """

    cost: float
    error: float


@dataclass(frozen=True, order=True)
class _State:
    """A choice for the first groups."""

    cost: float
    error: float
    picks: tuple[int, ...]


def choose(groups: Sequence[Sequence[Item]], budget: float) -> list[int] | None:
    """Return the index of the item to take of each group; None where nothing fits the budget.

    Of choices with equal errors it is one with the least cost. Sums are taken from the first group
    to the last.

    Args:
        groups: the items of each group.
        budget: what their costs may sum up to.
    """
    front = [_State(0, 0.0, ())]
    for group in groups:
        states = [
            _State(state.cost + item.cost, state.error + item.error, (*state.picks, index))
            for state in front
            for index, item in enumerate(group)
            if state.cost + item.cost <= budget
        ]
        front = _front(states)
    return list(front[-1].picks) if front else None


def cheapest(groups: Sequence[Sequence[Item]]) -> list[int]:
    """Return the index of the cheapest item of each group, of equally cheap ones the best."""
    return [
        min(range(len(group)), key=lambda index: (group[index].cost, group[index].error))
        for group in groups
    ]


def _front(states: list[_State]) -> list[_State]:
    """Return those that no other beats, from the cheapest to the best."""
    front: list[_State] = []
    for state in sorted(states):
        if not front or state.error < front[-1].error:
            front.append(state)
    return front
