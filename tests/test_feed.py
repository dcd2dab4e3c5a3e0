"""Properties of FEED."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import Tap, random_batch, setting
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS, DistillationBatch, Setting
from lsfd.distillers.feed import factor_distance
from lsfd.errors import LsfdError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "feed.json").read_text(encoding="utf-8"))


def feed(given: Setting, **options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["FEED"](given, **options)


def loss_of(distiller: Any, batch: DistillationBatch) -> Tensor:
    value: Tensor = distiller(batch)["feature"]
    return value


def teacher_features(batch: DistillationBatch, factors: Iterable[float]) -> list[dict[str, Tensor]]:
    features = zip(batch.teacher_features, factors, strict=True)
    return [{name: factor * value for name, value in theirs.items()} for theirs, factor in features]


def test_one_teacher_and_a_paraphraser_is_factor_transfer() -> None:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    student, teacher = randn(2, 4, 5, 7).requires_grad_(), randn(2, 6, 5, 7)
    given = Setting(2, ((Tap("s", "t", 4, 6),),))
    distiller = feed(given, scaling="mean")
    modules: list[nn.Module] = [distiller.translators[0], distiller.encoders[0]]
    for module in modules:
        for parameter in module.parameters():
            parameter.data = 0.5 * randn(*parameter.shape)
    batch = replace(
        random_batch(setting(4, 6)),
        student_features={"s": student},
        teacher_features=[{"t": teacher}],
    )
    loss = loss_of(distiller, batch)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["loss"], rel=1e-5)
    assert student.grad is not None
    assert student.grad.norm().item() == pytest.approx(GOLDEN["gradient"], rel=1e-4)


@pytest.mark.parametrize("paraphraser", [True, False])
def test_teachers_count_alike(paraphraser: bool) -> None:
    given = setting(4, 6, teachers=2)
    batch, distiller = random_batch(given), feed(given, paraphraser=paraphraser)
    before = loss_of(distiller, batch)
    distiller.translators = distiller.translators[::-1]
    distiller.encoders = distiller.encoders[::-1]
    swapped = replace(batch, teacher_features=batch.teacher_features[::-1])
    torch.testing.assert_close(loss_of(distiller, swapped), before)


def test_translators_are_not_shared() -> None:
    distiller = feed(setting(4, 6, teachers=2))
    one, other = (list(translator.parameters()) for translator in distiller.translators)
    assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_scale_of_teacher_features_does_not_matter() -> None:
    given = setting(4, 6, teachers=2)
    batch, distiller = random_batch(given), feed(given, paraphraser=False)
    scaled = replace(batch, teacher_features=teacher_features(batch, (255, 0.1)))
    torch.testing.assert_close(loss_of(distiller, scaled), loss_of(distiller, batch))


def test_only_the_last_pair_of_taps_counts() -> None:
    given = setting(4, 6)
    batch, distiller = random_batch(given), feed(given)
    before = loss_of(distiller, batch)
    for name, counts in (("0", False), ("1", False), ("2", True)):
        features = {
            tap: value.flip(3) if tap == f"s{name}" else value
            for tap, value in batch.student_features.items()
        }
        after = loss_of(distiller, replace(batch, student_features=features))
        assert (after != before) == counts


def test_scalings_differ_by_powers_of_the_size() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    mean = factor_distance(one, other, "mean")
    torch.testing.assert_close(factor_distance(one, other, "sum"), mean * 60)
    torch.testing.assert_close(factor_distance(one, other, "sqrt"), mean * 60**0.5)
    larger = [factor.repeat(1, 1, 2, 2) for factor in (one, other)]
    torch.testing.assert_close(factor_distance(*larger, "mean"), mean / 2)
    sqrt = factor_distance(one, other, "sqrt")
    torch.testing.assert_close(factor_distance(*larger, "sqrt"), sqrt)
    flat = torch.full((1, 3, 4, 5), 7.0)
    torch.testing.assert_close(factor_distance(flat, -flat, "sqrt"), torch.tensor(2.0))


def test_the_paraphraser_learns_in_its_stage_and_rests_afterwards() -> None:
    given = setting(4, 6, teachers=2)
    batch, distiller = random_batch(given), feed(given)
    (stage,) = distiller.stages()
    optimizer = torch.optim.Adam(distiller.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = distiller.stage_terms(stage, batch)["reconstruction"]
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in distiller.translators.parameters())
    optimizer.zero_grad()
    loss_of(distiller, batch).backward()
    assert all(parameter.grad is None for parameter in distiller.encoders.parameters())
    assert all(parameter.grad is not None for parameter in distiller.translators.parameters())


def test_without_paraphraser_there_is_nothing_to_learn_first() -> None:
    distiller = feed(setting(4, 6), paraphraser=False)
    assert not distiller.stages()
    assert distiller.translators[0][-1].out_channels == 6


@pytest.mark.parametrize(("rate", "channels"), [(0.01, 1), (0.5, 3), (2.0, 12)])
def test_rate_is_the_width_of_the_factor(rate: float, channels: int) -> None:
    given = setting(4, 6)
    factor = feed(given, rate=rate).encoders[0](torch.rand(1, 6, 5, 7))
    assert factor.shape == (1, channels, 5, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, r"^rate: must be more than 0, not 0\.0$"),
        ({"paraphraser_iter": -1}, "^paraphraser_iter: must be at least 0, not -1$"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        feed(setting(4, 6), **options)
