"""Properties of AT."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distillation import random_batch, setting
from official_fakd import official, official_batch

from lsfd.distillers import DISTILLERS
from lsfd.distillers.at import attention_map


@pytest.mark.parametrize(("distance", "file"), [("l1", "fakd.json"), ("l2", "at.json")])
def test_equals_the_official_code(distance: str, file: str) -> None:
    distiller = DISTILLERS["AT"](setting(4, 6), distance=distance)
    value = distiller(official_batch(4, 6))["attention"]
    torch.testing.assert_close(value, official(f"at_{distance}", file))


@pytest.mark.parametrize("power", [1, 2, 4])
def test_maps_are_of_unit_length_and_see_places_only(power: int) -> None:
    feature = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    maps = attention_map(feature, power)
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2))
    assert (maps >= 0).all()
    torch.testing.assert_close(attention_map(-300 * feature, power), maps)
    torch.testing.assert_close(attention_map(feature[:, [3, 5, 0, 1, 4, 2]], power), maps)
    torch.testing.assert_close(attention_map(torch.cat([feature, feature], 1), power), maps)


def test_map_values() -> None:
    feature = torch.tensor([[3.0, 0.0], [-1.0, 2.0]]).view(1, 2, 1, 2)  # Channels x pixels.
    for power, expected in ((1, [4.0, 2.0]), (2, [10.0, 4.0]), (4, [82.0, 16.0])):
        maps = torch.tensor([expected])
        torch.testing.assert_close(attention_map(feature, power), maps / maps.norm())


def test_a_higher_power_looks_at_fewer_places() -> None:
    feature = torch.rand(1, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    peaks = [attention_map(feature, power).max() for power in (1, 2, 4)]
    assert peaks[0] < peaks[1] < peaks[2]


@pytest.mark.parametrize("power", [1, 2, 4])
def test_features_near_zero_give_sane_gradients(power: int) -> None:
    given = setting(4, 6)
    batch = random_batch(given)
    tiny = {k: (1e-6 * v).detach().requires_grad_() for k, v in batch.student_features.items()}
    batch = replace(batch, student_features=tiny)
    DISTILLERS["AT"](given, p=power)(batch)["attention"].backward()
    assert all(torch.isfinite(v.grad).all() for v in tiny.values() if v.grad is not None)


def test_teachers_are_averaged() -> None:
    two = setting(4, 6, teachers=2)
    batch = random_batch(two)
    values = [
        DISTILLERS["AT"](setting(4, 6))(replace(batch, teacher_features=[features]))["attention"]
        for features in batch.teacher_features
    ]
    assert values[0] != values[1]
    torch.testing.assert_close(DISTILLERS["AT"](two)(batch)["attention"], sum(values) / 2)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_large_features_are_looked_at_like_small_ones(power: int) -> None:
    """Their squared maps alone would be more than float32 holds."""
    feature = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention_map(1e6 * feature, power), attention_map(feature, power))
