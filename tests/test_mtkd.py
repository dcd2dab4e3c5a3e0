"""Properties of MTKD."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import SCALE, random_batch, setting
from torch import Tensor
from torch.nn import functional

from lsfd.distillers import DISTILLERS, DistillationBatch
from lsfd.distillers.mtkd import haar, wavelet_loss
from lsfd.errors import LsfdError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mtkd.json").read_text(encoding="utf-8"))


def mtkd(teachers: int = 2, **options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["MTKD"](setting(teachers=teachers), **options)


def batch(teachers: int = 2) -> DistillationBatch:
    return random_batch(setting(teachers=teachers))


def disturb(distiller: Any) -> None:
    """Give the aggregator a last layer as if it had learned something."""
    torch.manual_seed(1)
    for parameter in distiller.aggregator.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['levels']} levels")
def test_the_official_loss(case: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(case["levels"])
    student, teacher = (
        torch.rand(1, 3, case["height"], case["width"], generator=generator) for _ in range(2)
    )
    loss = wavelet_loss(student.requires_grad_(), teacher, case["levels"])
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    assert student.grad is not None
    assert student.grad.norm().item() == pytest.approx(case["gradient"], rel=1e-5)


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """The image whose bands these are: the transform is its own inverse on each block of four."""
    columns, rows, both = high.unbind(2)
    signs = [(1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)]
    pixels = [low + a * columns + b * rows + c * both for a, b, c in signs]
    return functional.pixel_shuffle(torch.stack(pixels, 2).flatten(1, 2) / 2, 2)


def test_the_transform_keeps_everything() -> None:
    image = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    low, high = haar(image)
    assert low.shape == (2, 3, 4, 6) and high.shape == (2, 3, 3, 4, 6)
    torch.testing.assert_close(inverse_haar(low, high), image)
    energy = low.square().sum() + high.square().sum()
    torch.testing.assert_close(energy, image.square().sum())


def test_steps_show_in_the_band_of_their_direction() -> None:
    columns = torch.tensor([1.0, 0.0]).repeat(1, 1, 4, 2)
    for image, band in ((columns, 0), (columns.mT, 1)):
        _, high = haar(image)
        assert [bool(each.any()) for each in high.unbind(2)] == [band == b for b in range(3)]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_constant_offset_shows_in_the_low_band_only(levels: int) -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    _, before = haar(image)
    _, after = haar(image + 0.25)
    torch.testing.assert_close(after, before)
    loss = wavelet_loss(image + 0.25, image, levels)
    torch.testing.assert_close(loss, torch.tensor(0.25 * 2**levels))


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_aggregate_starts_as_the_mean(teachers: int) -> None:
    given = batch(teachers)
    aggregate = mtkd(teachers).aggregator(given.teachers)
    torch.testing.assert_close(aggregate, torch.stack(list(given.teachers)).mean(0))
    loss = mtkd(teachers, loss="l1")(given)["distill"]
    torch.testing.assert_close(loss, functional.l1_loss(given.student, aggregate))


def test_the_stage_finds_the_better_teacher_and_corrects_it() -> None:
    given = batch()
    good = given.gt + 0.02
    given = replace(given, teachers=[good, given.gt + 0.1 * torch.randn(good.shape)])
    distiller = mtkd(width=8, aggregate_lr=0.01)
    (stage,) = distiller.stages()
    optimizer = torch.optim.Adam(distiller.parameters(), stage.lr)
    for _ in range(100):
        optimizer.zero_grad()
        distiller.stage_terms(stage, given)["l1"].backward()
        optimizer.step()
    assert distiller.stage_terms(stage, given)["l1"] < functional.l1_loss(good, given.gt)


def test_without_correction_the_aggregate_lies_between_the_teachers() -> None:
    distiller, given = mtkd(), batch()
    disturb(distiller)
    last = distiller.aggregator.layers[-2]
    for parameter in last.parameters():
        parameter.data[2 * SCALE**2 :] = 0  # Shares come first.
    one, other = given.teachers
    aggregate = distiller.aggregator(given.teachers)
    assert (aggregate >= torch.minimum(one, other) - 1e-6).all()
    assert (aggregate <= torch.maximum(one, other) + 1e-6).all()
    assert not torch.allclose(aggregate, (one + other) / 2, atol=1e-3)


def test_the_aggregator_is_frozen_afterwards() -> None:
    distiller, given = mtkd(), batch()
    disturb(distiller)
    distiller(given)["distill"].backward()
    assert given.student.grad is not None and given.student.grad.any()
    assert all(parameter.grad is None for parameter in distiller.parameters())


def test_teachers_have_an_order_once_the_aggregator_has_learned() -> None:
    given = batch()
    other = replace(given, teachers=given.teachers[::-1])
    distiller = mtkd()
    torch.testing.assert_close(distiller(given)["distill"], distiller(other)["distill"])
    disturb(distiller)
    assert distiller(given)["distill"] != distiller(other)["distill"]


@pytest.mark.parametrize(
    ("name", "least"), [("levels", 1), ("width", 1), ("depth", 1), ("aggregate_iter", 0)]
)
def test_numbers_that_are_too_small_are_named(name: str, least: int) -> None:
    with pytest.raises(LsfdError, match=f"^{name}: must be at least {least}, not {least - 1}$"):
        mtkd(**{name: least - 1})
    assert mtkd(**{name: least})(batch())["distill"] > 0
