"""Choosing a candidate for each part so that the whole network keeps the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from lsfd.compression.budget import Budget
from lsfd.compression.candidates import Candidate, Shapes
from lsfd.compression.costs import Costs, network_cost
from lsfd.compression.knapsack import Item, cheapest, choose
from lsfd.compression.parts import Part, Shape, Split
from lsfd.errors import LsfdError
from lsfd.networks.slim_edsr import SlimEDSR
from lsfd.reporting.tables import Cell, markdown_table


@dataclass(frozen=True)
class Pick:
    """What was chosen for one part.

    Attributes:
        part: its name.
        shape: of the candidate.
        full: of the teacher's own.
        cost: of the candidate, in the budget's unit.
        error: of the candidate.
    """

    part: str
    shape: Shape
    full: Shape
    cost: float
    error: float


@dataclass(frozen=True)
class Choice:
    """A network within a budget.

    Attributes:
        budget: what it was chosen for.
        picks: one for each part.
        fixed: what the layers cost that belong to no part.
        cost: of the whole network: counted, or measured.
        options: of the network.
        network: assembled from the candidates.
    """

    budget: Budget
    picks: tuple[Pick, ...]
    fixed: float
    cost: float
    options: dict[str, Any]
    network: SlimEDSR

    @property
    def error(self) -> float:
        """The sum that was minimised."""
        return sum(pick.error for pick in self.picks)

    def to_json(self) -> dict[str, Any]:
        """Return all but the weights."""
        return {
            "budget": str(self.budget),
            "cost": self.cost,
            "fixed_cost": self.fixed,
            "error": self.error,
            "parts": [asdict(pick) for pick in self.picks],
            "architecture": self.options,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], budget: Budget, network: SlimEDSR) -> Choice:
        """Put together again what :meth:`to_json` returned."""
        picks = tuple(
            Pick(**{**pick, "shape": Shape(**pick["shape"]), "full": Shape(**pick["full"])})
            for pick in record["parts"]
        )
        architecture, cost = record["architecture"], record["cost"]
        return cls(budget, picks, record["fixed_cost"], cost, architecture, network)

    def to_markdown(self) -> str:
        """Return a table of the parts, and what they sum up to."""
        rows: list[list[Cell]] = [
            [
                pick.part,
                f"{pick.shape.depth} of {pick.full.depth}" if pick.part != "tail" else None,
                f"{pick.shape.width} of {pick.full.width}",
                pick.cost,
                255 * pick.error,
            ]
            for pick in self.picks
        ]
        rows.append(["first and middle convolution", None, None, self.fixed, 0.0])
        rows.append(["whole network", None, None, self.cost, 255 * self.error])
        header = ["block", "depth", "width", f"cost ({self.budget.kind})", "error (of 255)"]
        digits = {3: 2 if self.budget.kind == "latency_ms" else 0, 4: 3}
        return markdown_table(header, rows, digits=digits)


def choose_within(
    split: Split,
    candidates: Sequence[Sequence[Candidate]],
    budget: Budget,
    device: torch.device,
) -> Choice:
    """Choose the least sum of errors that keeps a budget, and assemble the network.

    Parameters and multiply-adds of the parts sum up to the network's. Latencies do so only about:
    the assembled network is measured, and if it is too slow, chosen anew within less.

    Args:
        split: the teacher.
        candidates: of each part.
        budget: what the network may cost.
        device: where latencies are measured.

    Raises:
        LsfdError: even the cheapest candidates exceed the budget.
    """
    costs = Costs(split, budget, device)
    items = [
        [
            Item(cost, candidate.error)
            for cost, candidate in zip(costs.of_candidates(part, group), group, strict=True)
        ]
        for part, group in zip(split.parts, candidates, strict=True)
    ]
    fixed = costs.fixed()
    limit = budget.limit - fixed
    while (picked := choose(items, limit)) is not None:
        choice = _assembled(split, candidates, items, picked, budget, fixed, device)
        if choice.cost <= budget.limit:
            return choice
        summed = sum(item.cost for item in _picked(items, picked))
        # Parts are slower together than apart; the next choice has to be a faster one.
        limit = min((limit + fixed) * budget.limit / choice.cost - fixed, summed * (1 - 1e-9))
    smallest = _assembled(split, candidates, items, cheapest(items), budget, fixed, device)
    if smallest.cost <= budget.limit:
        return smallest  # Measured together its parts may be faster than apart.
    raise _out_of_reach(budget, smallest.cost)


def check_reach(split: Split, shapes: Shapes, budget: Budget, device: torch.device) -> None:
    """Find out before any candidate is trained whether the smallest network keeps a budget.

    Raises:
        LsfdError: it does not.
    """

    def cost_of(part: Part, shape: Shape) -> int:
        return part.parameters(shape) if budget.kind == "params" else part.multiply_adds(shape)

    smallest = [
        part.cut(min(shapes[part.name], key=partial(cost_of, part))) for part in split.parts
    ]
    network, _ = split.assemble(smallest)
    cost = network_cost(network, split.scale, budget, device)
    if cost > budget.limit:
        raise _out_of_reach(budget, cost)


def _out_of_reach(budget: Budget, smallest: float) -> LsfdError:
    return LsfdError(
        f"--budget {budget}: cannot be kept; the smallest network that the candidates make has "
        f"{budget.describe(smallest)}. Add smaller depths or widths under compress"
    )


def _assembled(
    split: Split,
    candidates: Sequence[Sequence[Candidate]],
    items: Sequence[Sequence[Item]],
    picked: Sequence[int],
    budget: Budget,
    fixed: float,
    device: torch.device,
) -> Choice:
    chosen = [group[index] for group, index in zip(candidates, picked, strict=True)]
    network, options = split.assemble([candidate.module for candidate in chosen])
    picks = tuple(
        Pick(part.name, candidate.shape, part.full, item.cost, item.error)
        for part, candidate, item in zip(split.parts, chosen, _picked(items, picked), strict=True)
    )
    cost = network_cost(network, split.scale, budget, device)
    return Choice(budget, picks, fixed, cost, options, network)


def _picked(items: Sequence[Sequence[Item]], picked: Sequence[int]) -> list[Item]:
    return [group[index] for group, index in zip(items, picked, strict=True)]
