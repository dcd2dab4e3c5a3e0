"""Properties of KR."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import build, case, edsr, rcan, setting
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS, Setting
from lsfd.distillers.kr import quantiles, sparse_distance, stage_weights
from lsfd.errors import LsfdError


def kr(given: Setting, **options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["KR"](given, **options)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYERS = [randn(8, 4, 3, 3), randn(6, 8, 1, 1, seed=1), randn(6, 8, seed=2)]


def test_quantiles_are_of_the_distribution_alone() -> None:
    expected = quantiles(LAYERS, 16)
    changed = {
        "order of filters": [layer.flip(0) for layer in LAYERS],
        "order of inputs": [layer.roll(1, 1) for layer in LAYERS],
        "order of layers": LAYERS[::-1],
        "scale of filters": [torch.cat([layer[:1], 3 * layer[1:]]) for layer in LAYERS],
        "offset of filters": [torch.cat([layer[:1], 3 + layer[1:]]) for layer in LAYERS],
        "number of filters": [layer.repeat_interleave(3, 0) for layer in LAYERS],
    }
    for what, layers in changed.items():
        torch.testing.assert_close(quantiles(layers, 16), expected, msg=what)
    assert (expected[1:] > expected[:-1]).all()
    assert not torch.allclose(quantiles([layer.sign() for layer in LAYERS], 16), expected)


def test_quantiles_of_known_weights() -> None:
    weights = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    deviation = 1.25**0.5
    expected = torch.tensor([-1.0, 1.0]) / deviation
    torch.testing.assert_close(quantiles([weights], 2), expected)


def test_every_weight_gets_a_gradient() -> None:
    layer = LAYERS[0].clone().requires_grad_()
    target = quantiles([randn(8, 4, 3, 3, seed=3)], 16)
    (quantiles([layer], 16) - target).abs().mean().backward()
    assert layer.grad is not None and layer.grad.count_nonzero() == layer.numel()


def test_dead_filters_are_harmless() -> None:
    layer = torch.zeros(4, 3, requires_grad=True)
    value = quantiles([layer], 8)
    value.square().sum().backward()
    assert not value.any()
    assert layer.grad is not None and layer.grad.isfinite().all()


def names_of(network: nn.Module, weights: list[Tensor]) -> list[str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(weight)] for weight in weights]


def test_stages_lie_between_taps() -> None:
    network = edsr(num_block=3)
    stages = stage_weights(network, ["body.0", "body.2.conv2:input", "conv_after_body"])
    assert [names_of(network, stage) for stage in stages] == [
        ["conv_first.weight", "body.0.conv1.weight", "body.0.conv2.weight"],
        ["body.1.conv1.weight", "body.1.conv2.weight", "body.2.conv1.weight"],
        ["body.2.conv2.weight", "conv_after_body.weight"],
    ]


def test_a_stage_needs_weights() -> None:
    with pytest.raises(LsfdError, match=r"no convolution lies between 'body\.0' of EDSR"):
        stage_weights(edsr(), ["body.1", "body.0"])


def test_the_prior_depends_on_weights_up_to_the_last_tap() -> None:
    given = case(teachers=[edsr(8, 6, seed=1), rcan(seed=2)])
    distiller, batch = build(DISTILLERS["KR"], given), given.batch()
    distiller(batch)["prior"].backward()
    for name, parameter in given.student.network.named_parameters():
        learns = name.endswith("weight") and not name.startswith(("upsample", "conv_last"))
        assert (parameter.grad is not None) == learns, name
    other = {name: value + 1 for name, value in batch.student_features.items()}
    after = distiller(replace(batch, student_features=other))
    torch.testing.assert_close(after["prior"], distiller(batch)["prior"])


def test_the_prior_is_the_sum_over_stages_of_the_mean_over_quantiles() -> None:
    given = case()
    mine, theirs = (
        [quantiles(stage, 32) for stage in stage_weights(network, taps)]
        for network, taps in (
            (given.student.network, given.student.taps),
            (given.teachers[0].network, given.teachers[0].taps),
        )
    )
    expected = sum((a - b).abs().mean() for a, b in zip(mine, theirs, strict=True))
    prior = build(DISTILLERS["KR"], given)(given.batch())["prior"]
    torch.testing.assert_close(prior, expected)


def test_a_share_of_one_is_plain_feature_distillation() -> None:
    given = case()
    batch = given.batch()
    plain = build(DISTILLERS["FitNet"], given, kernel=1, distance="l1")(batch)["feature"]
    sparse = [build(DISTILLERS["KR"], given, share=share)(batch)["sparse"] for share in (1.0, 0.5)]
    torch.testing.assert_close(sparse[0], plain)
    assert plain < sparse[1] < 2 * plain


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("selection", ["residual", "teacher"])
def test_the_mask_is_exact(share: float, selection: Any) -> None:
    student, teacher = randn(3, 4, 5, 7).requires_grad_(), randn(3, 4, 5, 7, seed=1)
    loss = sparse_distance(student, teacher, share, selection)
    loss.backward()
    assert student.grad is not None
    mask = student.grad != 0
    count = max(1, round(share * 140))
    assert mask.flatten(1).sum(1).tolist() == [count] * 3
    residual = (student - teacher).detach().abs()
    key = residual if selection == "residual" else teacher.abs()
    for sample, chosen in zip(key, mask, strict=True):
        if share < 1:
            assert sample[chosen].min() > sample[~chosen].max()
    torch.testing.assert_close(loss, (mask * residual).mean() / (count / 140))


def test_both_terms_reach_the_student() -> None:
    given = case()
    distiller = build(DISTILLERS["KR"], given)
    for term in ("prior", "sparse"):
        given.student.zero_grad()
        distiller(given.batch())[term].backward()
        first = given.student.network.get_parameter("conv_first.weight").grad
        assert first is not None and first.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "^count: must be at least 1, not 0"),
        ({"share": 0.0}, "^share: must be more than 0 and at most 1, not 0"),
        ({"share": 1.5}, "^share: must be more than 0 and at most 1, not 1.5"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        kr(setting(), **options)
