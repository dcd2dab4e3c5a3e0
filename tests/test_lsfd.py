"""Properties of LSFD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import agreeing, random_batch, setting
from torch import Tensor

from lsfd.distillers import DISTILLERS, DistillationBatch, Setting
from lsfd.distillers.lsfd import feature_distance, normalized_attention


def lsfd(given: Setting, **options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["LSFD"](given, **options)


def feature_term(batch: DistillationBatch, **options: Any) -> Tensor:
    given = setting(batch.student_features["s0"].shape[1], 6)
    value: Tensor = lsfd(given, **options)(batch)["feature"]
    return value


def test_attention_has_mean_one_and_no_gradient() -> None:
    given = setting(4, 6)
    distiller, batch = lsfd(given), random_batch(given)
    distances = distiller.distances(batch)
    for attention in distiller.attention_maps(batch, 0, distances):
        assert attention.shape == (2, 1, 5, 7)
        assert not attention.requires_grad
        assert (attention >= 0).all()
        torch.testing.assert_close(attention.mean((1, 2, 3)), torch.ones(2))


def test_loss_is_jensens_ratio() -> None:
    given = setting(4, 6)
    distiller, batch = lsfd(given), random_batch(given)
    weighted, plain = torch.zeros(()), torch.zeros(())
    for a in distiller.distances(batch):
        expected = (a.square().mean((1, 2, 3)) / a.mean((1, 2, 3))).mean()
        assert expected > a.mean()
        weighted, plain = weighted + expected, plain + a.mean()
    torch.testing.assert_close(distiller(batch)["feature"], weighted)
    torch.testing.assert_close(lsfd(given, attention="none")(batch)["feature"], plain)


def test_constant_difference_gives_uniform_attention() -> None:
    batch = agreeing(random_batch(setting()))
    shifted = replace(
        batch, student_features={k: v + 0.5 for k, v in batch.student_features.items()}
    )
    torch.testing.assert_close(
        feature_term(shifted), feature_term(shifted, attention="none"), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(("kernel", "local"), [(1, True), (3, False), (5, False)])
def test_only_the_pointwise_regressor_is_local(kernel: int, local: bool) -> None:
    given = setting(4, 6)
    distiller, batch = lsfd(given, kernel=kernel), random_batch(given)
    features = {k: v.detach().clone() for k, v in batch.student_features.items()}
    before = distiller.distances(replace(batch, student_features=features))[0]
    features["s0"] = features["s0"].clone()
    features["s0"][0, :, 2, 3] += 1
    after = distiller.distances(replace(batch, student_features=features))[0]
    changed = (before != after).nonzero().tolist()
    assert [0, 0, 2, 3] in changed
    assert (changed == [[0, 0, 2, 3]]) == local


def test_scaling_both_features_scales_the_loss() -> None:
    given = setting()
    batch = random_batch(given)
    scaled = replace(
        batch,
        student_features={k: 3 * v for k, v in batch.student_features.items()},
        teacher_features=[{k: 3 * v for k, v in batch.teacher_features[0].items()}],
    )
    torch.testing.assert_close(feature_term(scaled), 3 * feature_term(batch))
    torch.testing.assert_close(
        feature_term(scaled, distance="l2_normalized"),
        feature_term(batch, distance="l2_normalized"),
    )


SWITCHES: list[dict[str, Any]] = [
    {"kernel": 1},
    {"distance": "l2"},
    {"distance": "l2_normalized"},
    {"attention": "output"},
    {"attention": "teacher_error"},
    {"attention": "none"},
    {"normalization": "softmax"},
    {"normalization": "softmax", "temperature": 0.1},
    {"normalization": "minmax"},
    {"normalization": "l2"},
    {"shared": True},
]


def test_every_switch_changes_the_loss() -> None:
    given = setting(4, 6)
    batch = random_batch(given)
    values = [float(lsfd(given, **switch)(batch)["feature"]) for switch in [{}, *SWITCHES]]
    assert len(set(values)) == len(values)


def test_detaching_changes_the_gradient_only() -> None:
    given = setting(4, 6)
    gradients, values = [], []
    for detach in (True, False):
        batch = random_batch(given)
        term = lsfd(given, detach=detach)(batch)["feature"]
        term.backward()
        values.append(float(term))
        gradients.append(batch.student_features["s0"].grad)
    assert values[0] == values[1]
    assert not torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("normalization", ["mean", "softmax", "minmax", "l2"])
def test_normalizations(normalization: Any) -> None:
    difference = torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    attention = normalized_attention(difference, normalization)
    assert (attention >= 0).all()
    # More difference, more attention.
    assert torch.equal(attention.flatten(1).argsort(1), difference.flatten(1).argsort(1))
    summary: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda a: a.mean((1, 2, 3)),
        "softmax": lambda a: a.mean((1, 2, 3)),
        "minmax": lambda a: a.amax((1, 2, 3)) - a.amin((1, 2, 3)),
        "l2": lambda a: a.square().mean((1, 2, 3)).sqrt(),
    }
    torch.testing.assert_close(summary[normalization](attention), torch.ones(2))
    for value in (0.0, 0.3):
        flat = torch.full((1, 1, 4, 6), value)
        torch.testing.assert_close(
            normalized_attention(flat, normalization), torch.ones(1, 1, 4, 6)
        )


def test_output_attention_looks_at_the_right_place() -> None:
    given = setting(4, 6)
    batch = random_batch(given)
    image = batch.teachers[0].clone()
    image[0, :, 6:8, 4:6] += 1.0  # The low-resolution pixel (3, 2).
    distiller = lsfd(given, attention="output")
    at = replace(batch, student=batch.teachers[0], teachers=[image])
    attention = distiller.attention_maps(at, 0, distiller.distances(at))[0]
    assert attention[0].argmax() == 3 * 7 + 2
    torch.testing.assert_close(attention[0].amax(), torch.tensor(35.0))


def test_distance_values() -> None:
    student = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    teacher = torch.tensor([0.0, 4.0]).view(1, 2, 1, 1)
    assert feature_distance(student, teacher, "l1").item() == 3.5
    assert feature_distance(student, teacher, "l2").item() == 12.5
    assert feature_distance(student, teacher, "l2_normalized").item() == 2.0
