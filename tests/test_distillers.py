"""Properties of every distillation method, and of LSFD in particular."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller, Setting
from lsfd.distillers.lsfd import feature_distance, normalized_attention
from lsfd.errors import LsfdError

SCALE = 2


@dataclass(frozen=True)
class Tap:
    student: str
    teacher: str
    student_channels: int
    teacher_channels: int


def setting(student_channels: int = 6, teacher_channels: int = 6, teachers: int = 1) -> Setting:
    taps = tuple(Tap(f"s{i}", f"t{i}", student_channels, teacher_channels) for i in range(3))
    return Setting(SCALE, (taps,) * teachers)


def make_batch(given: Setting, seed: int = 0) -> DistillationBatch:
    """Random features and images; only the student's carry gradients."""
    generator = torch.Generator().manual_seed(seed)

    def rand(channels: int, scale: int = 1) -> Tensor:
        return torch.rand(2, channels, 5 * scale, 7 * scale, generator=generator)

    return DistillationBatch(
        lq=rand(3),
        gt=rand(3, SCALE),
        student=rand(3, SCALE).requires_grad_(),
        teachers=[rand(3, SCALE) for _ in given.taps],
        student_features={
            tap.student: rand(tap.student_channels).requires_grad_() for tap in given.taps[0]
        },
        teacher_features=[
            {tap.teacher: rand(tap.teacher_channels) for tap in taps} for taps in given.taps
        ],
        step=1,
    )


def agreeing(batch: DistillationBatch) -> DistillationBatch:
    """The same batch with a student that does exactly what its teacher does."""
    features = {f"s{name[1:]}": value for name, value in batch.teacher_features[0].items()}
    return replace(
        batch,
        student=batch.teachers[0],
        teachers=[batch.teachers[0]] * len(batch.teachers),
        student_features=features,
        teacher_features=[batch.teacher_features[0]] * len(batch.teachers),
    )


@pytest.fixture(params=sorted(DISTILLERS))
def method(request: pytest.FixtureRequest) -> type[Distiller]:
    return DISTILLERS[request.param]


def test_terms_are_those_declared(method: type[Distiller]) -> None:
    given = setting(4, 6)
    terms = method(given)(make_batch(given))
    assert terms.keys() == method.default_weights.keys()
    for value in terms.values():
        assert value.shape == () and value.dtype == torch.float32 and value > 0


def test_agreement_costs_nothing(method: type[Distiller]) -> None:
    given = setting()
    for value in method(given)(agreeing(make_batch(given))).values():
        assert value == 0


def test_zero_features_are_finite(method: type[Distiller]) -> None:
    given = setting(4, 6)
    batch = make_batch(given)
    zeros = {
        name: torch.zeros_like(f, requires_grad=True) for name, f in batch.student_features.items()
    }
    zero_teacher = [{name: torch.zeros_like(f) for name, f in batch.teacher_features[0].items()}]
    distiller = method(given)
    terms = distiller(replace(batch, student_features=zeros, teacher_features=zero_teacher))
    torch.stack(list(terms.values())).sum().backward()
    for value in terms.values():
        assert torch.isfinite(value)
    for tensor in [*zeros.values(), *distiller.parameters()]:
        assert tensor.grad is None or torch.isfinite(tensor.grad).all()


def test_gradients_reach_the_student_but_no_teacher(method: type[Distiller]) -> None:
    given = setting(4, 6)
    batch = make_batch(given)
    targets = [*batch.teachers, *(f for each in batch.teacher_features for f in each.values())]
    torch.stack(list(method(given)(batch).values())).sum().backward()
    assert all(target.grad is None and not target.requires_grad for target in targets)
    sources = list(batch.student_features.values()) if method.uses_features else [batch.student]
    assert all(source.grad is not None and source.grad.abs().sum() > 0 for source in sources)


def test_teachers_are_averaged_in_any_order(method: type[Distiller]) -> None:
    one, two = setting(), setting(teachers=2)
    batch = make_batch(two)
    swapped = replace(
        batch, teachers=batch.teachers[::-1], teacher_features=batch.teacher_features[::-1]
    )
    singles = [
        method(one)(replace(batch, teachers=[image], teacher_features=[features]))
        for image, features in zip(batch.teachers, batch.teacher_features, strict=True)
    ]
    both, reversed_ = method(two)(batch), method(two)(swapped)
    for term, value in both.items():
        torch.testing.assert_close(value, (singles[0][term] + singles[1][term]) / 2)
        torch.testing.assert_close(value, reversed_[term])


def test_wrong_weights_are_named(method: type[Distiller]) -> None:
    with pytest.raises(LsfdError, match=r"weights\.featur"):
        method(setting(), weights={"featur": 1.0})
    term = next(iter(method.default_weights))
    with pytest.raises(LsfdError, match="at least 0"):
        method(setting(), weights={term: -1.0})


# LSFD


def lsfd(given: Setting, **options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["LSFD"](given, **options)


def feature_term(batch: DistillationBatch, **options: Any) -> Tensor:
    given = setting(batch.student_features["s0"].shape[1], 6)
    value: Tensor = lsfd(given, **options)(batch)["feature"]
    return value


def test_attention_has_mean_one_and_no_gradient() -> None:
    given = setting(4, 6)
    distiller, batch = lsfd(given), make_batch(given)
    distances = distiller.distances(batch)
    for attention in distiller.attention_maps(batch, 0, distances):
        assert attention.shape == (2, 1, 5, 7)
        assert not attention.requires_grad
        assert (attention >= 0).all()
        torch.testing.assert_close(attention.mean((1, 2, 3)), torch.ones(2))


def test_loss_is_jensens_ratio() -> None:
    given = setting(4, 6)
    distiller, batch = lsfd(given), make_batch(given)
    weighted, plain = torch.zeros(()), torch.zeros(())
    for a in distiller.distances(batch):
        expected = (a.square().mean((1, 2, 3)) / a.mean((1, 2, 3))).mean()
        assert expected > a.mean()
        weighted, plain = weighted + expected, plain + a.mean()
    torch.testing.assert_close(distiller(batch)["feature"], weighted)
    torch.testing.assert_close(lsfd(given, attention="none")(batch)["feature"], plain)


def test_constant_difference_gives_uniform_attention() -> None:
    batch = agreeing(make_batch(setting()))
    shifted = replace(
        batch, student_features={k: v + 0.5 for k, v in batch.student_features.items()}
    )
    torch.testing.assert_close(
        feature_term(shifted), feature_term(shifted, attention="none"), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(("kernel", "local"), [(1, True), (3, False), (5, False)])
def test_only_the_pointwise_regressor_is_local(kernel: int, local: bool) -> None:
    given = setting(4, 6)
    distiller, batch = lsfd(given, kernel=kernel), make_batch(given)
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
    batch = make_batch(given)
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
    {"kernel": 3},
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
    batch = make_batch(given)
    values = [float(lsfd(given, **switch)(batch)["feature"]) for switch in [{}, *SWITCHES]]
    assert len(set(values)) == len(values)


def test_detaching_changes_the_gradient_only() -> None:
    given = setting(4, 6)
    gradients, values = [], []
    for detach in (True, False):
        batch = make_batch(given)
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
    batch = make_batch(given)
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


def test_fitnet_distance_values() -> None:
    given = setting()
    batch = agreeing(make_batch(given))
    shifted = replace(batch, student_features={k: v + 2 for k, v in batch.student_features.items()})
    for distance, expected in (("l2", 3 * 0.5 * 4), ("l1", 3 * 2)):
        value = DISTILLERS["FitNet"](given, kernel=1, distance=distance)(shifted)["feature"]
        torch.testing.assert_close(value, torch.tensor(float(expected)))


def test_output_is_l1_to_the_teacher() -> None:
    given = setting()
    batch = make_batch(given)
    expected = functional.l1_loss(batch.student, batch.teachers[0])
    torch.testing.assert_close(DISTILLERS["Output"](given)(batch)["output"], expected)
