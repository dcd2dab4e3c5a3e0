"""Block-wise compression: parts, candidates, costs and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsfd.compression.budget import Budget, parse_budget
from lsfd.compression.candidates import (
    Candidate,
    CandidateFolder,
    Lesson,
    Recipe,
    finished_images,
    image_error,
    mean_difference,
    missing,
    train_candidate,
    train_missing,
)
from lsfd.compression.choice import Choice, choose_within
from lsfd.compression.parts import Shape, Split
from lsfd.errors import LsfdError
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network

EDSR = {
    "type": "EDSR",
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 8,
    "num_block": 5,
    "upscale": 4,
    "res_scale": 0.5,
}
RECIPE = Recipe(iterations=30, batch_size=3, lr=3e-3, seed=0)
CPU = torch.device("cpu")
UNLIMITED = Budget("params", 1e12)


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 7, 9, generator=torch.Generator().manual_seed(seed))


def teacher(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network({**EDSR, **options}).eval()


@pytest.fixture(scope="module")
def split() -> Split:
    return Split(teacher(), 2)


def shapes_of(split: Split) -> dict[str, list[Shape]]:
    return {part.name: part.shapes([0, 1], [0.25, 0.5]) for part in split.parts}


def untrained(split: Split) -> list[list[Candidate]]:
    """All candidates as they start, with their errors."""
    candidates = []
    for index, part in enumerate(split.parts):
        test = Lesson.of(split, index, images(), RECIPE, None)
        target = finished_images(split, part.module, test, RECIPE)
        modules = {shape: part.cut(shape) for shape in shapes_of(split)[part.name]}
        candidates.append(
            [
                Candidate(
                    shape,
                    module.requires_grad_(False),
                    mean_difference(finished_images(split, module, test, RECIPE), target),
                )
                for shape, module in modules.items()
            ]
        )
    return candidates


# Budgets


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("params=300k", Budget("params", 300_000)),
        ("params=0.3M", Budget("params", 300_000)),
        ("params=123456", Budget("params", 123_456)),
        ("params=1.5M", Budget("params", 1_500_000)),
        ("madds=12G", Budget("madds", 12e9, 1280, 720)),
        ("madds=12.5G@640x360", Budget("madds", 12.5e9, 640, 360)),
        ("latency_ms=25@640x360", Budget("latency_ms", 25, 640, 360)),
        (" latency_ms=0.5 ", Budget("latency_ms", 0.5, 1280, 720)),
    ],
)
def test_budgets_are_read_and_written(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget
    assert not set(budget.file_name) & set('/\\:*?"<>|=@ ')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("300k", "has no '='; write params=300k"),
        ("parms=300k", "unknown kind 'parms'; did you mean 'params'"),
        ("flops=1G", "unknown kind 'flops'"),
        ("params=", "'' is no number"),
        ("params=300kk", "'300kk' is no number"),
        ("params=many", "'many' is no number"),
        ("params=-3k", "must be above 0 and finite"),
        ("params=0", "must be above 0"),
        ("params=nan", "must be above 0 and finite"),
        ("madds=inf", "must be above 0 and finite"),
        ("params=300k@640x360", "do not depend on a size; leave out '@640x360'"),
        ("latency_ms=25@640", "'640' is no size"),
        ("latency_ms=25@0x5", "'0x5' is no size"),
        ("madds=1G@99999x99999", "'99999x99999' is no size"),
    ],
)
def test_wrong_budgets_get_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(LsfdError) as caught:
        parse_budget(text)
    assert f"--budget {text}: " in str(caught.value) and sentence in str(caught.value)


def test_an_output_below_one_pixel_is_refused(split: Split) -> None:
    with pytest.raises(LsfdError, match="the output must be 4 x 4 or larger"):
        choose_within(split, untrained(split), Budget("madds", 1e9, 3, 3), CPU)


# Parts


def test_a_teacher_falls_into_groups_and_tail(split: Split) -> None:
    assert [part.name for part in split.parts] == ["blocks 1-2", "blocks 3-4", "block 5", "tail"]
    assert [part.full for part in split.parts] == [
        Shape(2, 8),
        Shape(2, 8),
        Shape(1, 8),
        Shape(1, 8),
    ]


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_the_full_parts_make_the_teacher(upscale: int) -> None:
    original = teacher(upscale=upscale)
    split = Split(original, 2)
    network, options = split.assemble([part.cut(part.full) for part in split.parts])
    assert torch.equal(network(images()), original(images()))
    assert options["block_widths"] == [8] * 5 and options["upsample_width"] == 8


def test_features_go_from_part_to_part(split: Split) -> None:
    x, whole = images(), split.network(images())
    for index, part in enumerate(split.parts):
        feature = part.module(split.given(index, x))
        if index < len(split.parts) - 2:
            assert torch.equal(feature, split.given(index + 1, x))
        assert torch.equal(split.finished(index, feature, x), whole)


def test_shapes_are_unique_and_hold_the_full_one(split: Split) -> None:
    first, _, single, tail = split.parts
    assert first.shapes([0, 1, 7], [0.25, 0.26, 1e-9, 1.0]) == [
        Shape(0, 0),
        *(Shape(depth, width) for depth in (1, 2) for width in (1, 2, 8)),
    ]
    assert single.shapes([0, 1, 2], []) == [Shape(0, 0), Shape(1, 8)]
    assert tail.shapes([0], [0.5]) == [Shape(1, 4), Shape(1, 8)]


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_channels_that_do_nothing_are_cut_first(upscale: int) -> None:
    # A teacher in which half of all inner channels, and one block of two, give nothing.
    original = teacher(upscale=upscale)
    split = Split(original, 2)
    dead = torch.tensor([0, 2, 3, 6])
    with torch.no_grad():
        for block in split.network.body:
            block.conv1.weight[dead] = 0
            block.conv1.bias[dead] = 0
        split.network.body[2].conv2.weight.zero_()
        split.network.body[2].conv2.bias.zero_()
        area = {2: 4, 3: 9, 4: 4}[upscale]
        for layer in split.parts[-1].module.convolutions[:-1]:
            layer.weight.unflatten(0, (-1, area))[dead] = 0
            layer.bias.unflatten(0, (-1, area))[dead] = 0
    halves = [Shape(2, 4), Shape(1, 4), Shape(1, 4), Shape(1, 4)]
    cuts = [part.cut(shape) for part, shape in zip(split.parts, halves, strict=True)]
    network, options = split.assemble(cuts)
    assert options["block_widths"] == [4] * 4 and options["upsample_width"] == 4
    torch.testing.assert_close(network(images()), split.network(images()), rtol=0, atol=1e-5)


def test_cutting_leaves_the_teacher_alone(split: Split) -> None:
    before = {name: value.clone() for name, value in split.network.state_dict().items()}
    for part in split.parts:
        module = part.cut(Shape(1, 4))
        for weights in module.parameters():
            assert weights.requires_grad
            weights.detach().fill_(7)
    assert all(
        torch.equal(value, before[name]) for name, value in split.network.state_dict().items()
    )
    assert not any(weights.requires_grad for weights in split.network.parameters())


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_analytic_costs_are_the_counted_ones(upscale: int) -> None:
    split = Split(teacher(upscale=upscale), 2)
    pixels = 6 * 5
    for shapes in islice(product(*shapes_of(split).values()), 0, None, 53):
        network, _ = split.assemble(
            [part.cut(shape) for part, shape in zip(split.parts, shapes, strict=True)]
        )
        both = list(zip(split.parts, shapes, strict=True))
        parameters = split.fixed_parameters + sum(part.parameters(s) for part, s in both)
        products = split.fixed_multiply_adds + sum(part.multiply_adds(s) for part, s in both)
        assert parameters == count_parameters(network)
        assert products * pixels == multiply_adds(network, 6, 5)


def test_other_teachers_are_refused() -> None:
    with pytest.raises(LsfdError, match="the teacher is RIDNet; only an EDSR can be compressed"):
        Split(build_network({"type": "RIDNet", "in_channels": 3, "mid_channels": 16,
                             "out_channels": 3}), 2)  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"type": "CheapEDSR"}, {"type": "QuantizedEDSR"}], ids=lambda each: each["type"]
)
def test_relatives_of_edsr_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(LsfdError, match=f"the teacher is {options['type']}; only an EDSR can"):
        Split(teacher(**options), 2)


# Candidates


def test_the_full_part_has_no_error_and_a_smaller_one_has(split: Split) -> None:
    for part, group in zip(split.parts, untrained(split), strict=True):
        for candidate in group:
            assert (candidate.error == 0) == (candidate.shape == part.full)


def test_an_error_is_that_of_the_network_with_this_one_part(split: Split) -> None:
    full = [part.module for part in split.parts]
    for index, group in enumerate(untrained(split)):
        network, _ = split.assemble([*full[:index], group[0].module, *full[index + 1 :]])
        expected = image_error(split, network, images(), RECIPE)
        assert group[0].error == pytest.approx(expected, rel=1e-5)


def test_training_brings_a_candidate_nearer_to_the_part() -> None:
    split = Split(teacher(), 2)
    for index, part in enumerate(split.parts[1:], 1):
        lesson = Lesson.of(split, index, images(), RECIPE, None)
        module = part.cut(Shape(1, 4))
        before = (module(lesson.given) - lesson.wanted).abs().mean()
        steps: list[None] = []
        train_candidate(module, lesson, RECIPE, lambda steps=steps: steps.append(None))
        after = (module(lesson.given) - lesson.wanted).abs().mean()
        assert after < 0.9 * before
        assert len(steps) == RECIPE.iterations


def test_gradients_too_small_for_half_precision_are_scaled() -> None:
    class Faint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, feature: Tensor) -> Tensor:
            return 1e-4 * self.conv(feature)

    given = torch.randn(8, 4, 24, 24)
    lesson = Lesson(0, torch.empty(8, 3, 24, 24), given, given + 1)
    module = Faint()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    train_candidate(module, lesson, replace(RECIPE, dtype=torch.float16), lambda: None)
    for old, new in zip(before, module.parameters(), strict=True):
        assert not torch.equal(old, new)


def train_all(
    split: Split,
    folder: CandidateFolder,
    recipe: Recipe,
    on_step: Callable[..., object] = lambda *_: None,
) -> list[tuple[str, Shape]]:
    trained = train_missing(
        split, shapes_of(split), folder, images(), images(4, 1), recipe, on_step
    )
    return [(part.name, candidate.shape) for part, candidate in trained]


def test_candidates_are_kept_and_trained_once(split: Split, tmp_path: Path) -> None:
    folder = CandidateFolder(tmp_path)
    left = missing(split, shapes_of(split), folder)
    assert len(left) == 2 * 6 + 3 + 2  # All but the full ones.
    done = train_all(split, folder, replace(RECIPE, iterations=2))
    assert done == [(split.parts[index].name, shape) for index, shape in left]
    assert missing(split, shapes_of(split), folder) == []
    assert train_all(split, folder, RECIPE) == []
    for index, shape in left:
        found = folder.read(split.parts[index], shape)
        assert found.shape == shape and found.error > 0


def test_what_was_stopped_goes_on_to_the_same_candidates(split: Split, tmp_path: Path) -> None:
    straight, broken = CandidateFolder(tmp_path / "straight"), CandidateFolder(tmp_path / "broken")
    recipe = replace(RECIPE, iterations=4)
    train_all(split, straight, recipe)
    steps = iter(range(10**6))

    def interrupt(*_: object) -> None:
        if next(steps) == 4 * recipe.iterations + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_all(split, broken, recipe, interrupt)
    # Depth 0 takes no steps; four others were trained, the fifth is lost.
    assert len(list(broken.root.iterdir())) == 1 + 4
    torch.rand(3)  # Whatever else draws random numbers changes nothing.
    train_all(split, broken, recipe)
    for file in straight.root.iterdir():
        assert (broken.root / file.name).read_bytes() == file.read_bytes()


def test_a_damaged_candidate_gets_a_sentence(split: Split, tmp_path: Path) -> None:
    folder, (part, *_) = CandidateFolder(tmp_path), split.parts
    folder.write(part, Candidate(Shape(1, 2), part.cut(Shape(1, 2)), 0.5))
    path = folder.path(part, Shape(1, 2))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(LsfdError, match=r"damaged .* delete it and it is trained again"):
        folder.read(part, Shape(1, 2))


def test_a_candidate_that_diverges_gets_a_sentence(split: Split, tmp_path: Path) -> None:
    recipe = Recipe(iterations=5, batch_size=3, lr=1e30, seed=0)
    shapes = {part.name: [Shape(1, 2)] for part in split.parts}
    trained = train_missing(
        split, shapes, CandidateFolder(tmp_path), images(), images(), recipe, lambda *_: None
    )
    with pytest.raises(LsfdError, match=r"compress\.lr: .* diverged"):
        list(trained)


# The choice


def brute_force(split: Split, candidates: list[list[Candidate]], limit: float, kind: str) -> float:
    errors = []
    for chosen in product(*candidates):
        network, _ = split.assemble([candidate.module for candidate in chosen])
        cost = count_parameters(network) if kind == "params" else multiply_adds(network, 2, 3)
        if cost <= limit:
            errors.append(sum(candidate.error for candidate in chosen))
    return min(errors)


@pytest.mark.parametrize("kind", ["params", "madds"])
def test_the_choice_equals_trying_every_network(split: Split, kind: Any) -> None:
    candidates = [group[::3] for group in untrained(split)]
    largest = choose_within(split, candidates, Budget(kind, 1e12, 12, 8), CPU).cost
    for share in (0.5, 0.75):
        limit = share * largest
        choice = choose_within(split, candidates, Budget(kind, limit, 12, 8), CPU)
        assert choice.cost <= limit
        assert choice.error == pytest.approx(brute_force(split, candidates, limit, kind))


@pytest.mark.parametrize("kind", ["params", "madds"])
def test_the_cost_is_that_of_the_real_network_and_within_the_budget(
    split: Split, kind: Any
) -> None:
    candidates, last = untrained(split), float("inf")
    largest = choose_within(split, candidates, Budget(kind, 1e12, 12, 8), CPU).cost
    for limit in torch.linspace(0.25, 1, 8).mul(largest).tolist():
        choice = choose_within(split, candidates, Budget(kind, limit, 12, 8), CPU)
        network = build_network(choice.options)
        counted = count_parameters(network) if kind == "params" else multiply_adds(network, 2, 3)
        assert counted == choice.cost <= limit
        assert choice.cost == choice.fixed + sum(pick.cost for pick in choice.picks)
        assert choice.error <= last
        last = choice.error


def test_an_unlimited_budget_gives_the_teacher(split: Split) -> None:
    choice = choose_within(split, untrained(split), UNLIMITED, CPU)
    assert choice.error == 0
    assert [pick.shape for pick in choice.picks] == [part.full for part in split.parts]
    assert torch.equal(choice.network(images()), split.network(images()))


def test_a_budget_that_cannot_be_kept_gets_the_smallest_cost(split: Split) -> None:
    candidates = untrained(split)
    with pytest.raises(LsfdError, match=r"--budget params=100: cannot be kept") as caught:
        choose_within(split, candidates, Budget("params", 100), CPU)
    smallest, _ = split.assemble([group[0].module for group in candidates])
    count = count_parameters(smallest)
    assert f"has {count:,} parameters" in str(caught.value)
    assert choose_within(split, candidates, Budget("params", count), CPU).cost == count
    with pytest.raises(LsfdError, match="cannot be kept"):
        choose_within(split, candidates, Budget("params", count - 1), CPU)


def clock(monkeypatch: pytest.MonkeyPatch, together: float) -> None:
    """Let a module take a microsecond for each parameter, and a whole network a multiple."""

    def latency(module: nn.Module, *_: object, channels: int = 3) -> float:
        factor = together if type(module).__name__ == "SlimEDSR" else 1
        return 1e-6 * count_parameters(module) * factor

    monkeypatch.setattr("lsfd.compression.costs.latency", latency)


@pytest.mark.parametrize("together", [0.8, 1.0, 1.3])
def test_a_latency_is_kept_by_the_assembled_network(
    split: Split, monkeypatch: pytest.MonkeyPatch, together: float
) -> None:
    clock(monkeypatch, together)
    candidates = untrained(split)
    full = together * count_parameters(split.network) / 1000
    for share in (0.4, 0.6, 0.8, 1.3):
        budget = Budget("latency_ms", share * full)
        choice = choose_within(split, candidates, budget, CPU)
        assert choice.cost == pytest.approx(together * count_parameters(choice.network) / 1000)
        assert choice.cost <= budget.limit
    assert choice.error == 0  # With time to spare it is the teacher.


def test_a_latency_that_only_the_sum_exceeds_is_kept(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, 0.5)
    candidates = untrained(split)
    smallest, _ = split.assemble([group[0].module for group in candidates])
    milliseconds = 0.5 * count_parameters(smallest) / 1000
    budget = Budget("latency_ms", 1.01 * milliseconds)
    assert choose_within(split, candidates, budget, CPU).cost == pytest.approx(milliseconds)
    with pytest.raises(LsfdError, match="cannot be kept; the smallest network"):
        choose_within(split, candidates, Budget("latency_ms", 0.99 * milliseconds), CPU)


def test_latencies_are_measured(split: Split) -> None:
    candidates = [group[-2:] for group in untrained(split)]
    choice = choose_within(split, candidates, Budget("latency_ms", 1e6, 32, 24), CPU)
    assert choice.error == 0 and 0 < choice.cost < 1e4
    assert all(pick.cost > 0 for pick in choice.picks)


def test_a_choice_is_told_and_read_back(split: Split) -> None:
    choice = choose_within(split, untrained(split), Budget("params", 3000), CPU)
    again = Choice.from_json(choice.to_json(), choice.budget, choice.network)
    assert again == choice
    table = again.to_markdown()
    assert "blocks 1-2" in table and "whole network" in table and f"{choice.cost:,}" in table
