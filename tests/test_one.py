"""Properties of ONE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import Case, build, case, edsr, rcan
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS, DistillationBatch
from lsfd.distillers.one import Branch, Gate, ensemble, rampup, shared_layers
from lsfd.errors import LsfdError


def grown(given: Case, **options: Any) -> Any:
    """ONE with branches that differ from the student and from each other."""
    number = iter(range(10, 20))

    def new_student() -> nn.Module:
        seed = next(number)
        return (
            rcan(seed=seed) if type(given.setting.student).__name__ == "RCAN" else edsr(seed=seed)
        )

    given.setting = replace(given.setting, new_student=new_student)
    return build(DISTILLERS["ONE"], given, **options)


@pytest.fixture(params=["edsr", "rcan"])
def given(request: pytest.FixtureRequest) -> Case:
    return case(edsr() if request.param == "edsr" else rcan(), teachers=[], peers=[])


def images_of(one: Any, batch: DistillationBatch) -> list[Tensor]:
    return [batch.student, *(b(batch.lq, batch.student_features) for b in one.branches)]


def learns(module: nn.Module) -> Iterator[bool]:
    return (p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("share", [0.0, 0.4, 2 / 3, 1.0])
def test_branches_go_on_from_the_students_features(given: Case, share: float) -> None:
    """With the student's weights behind the shared layers, a branch gives the student's image."""
    one = build(DISTILLERS["ONE"], given, share=share)  # Its new students are copies.
    batch = given.batch()
    for image in images_of(one, batch)[1:]:
        assert torch.equal(image, batch.student)
    other = {name: feature + 1 for name, feature in batch.student_features.items()}
    changed = images_of(one, replace(batch, student_features=other))[1]
    assert not torch.allclose(changed, batch.student)


@pytest.mark.parametrize("share", [0.0, 0.4, 2 / 3, 1.0])
def test_branches_own_what_is_not_shared(given: Case, share: float) -> None:
    one = grown(given, share=share)
    blocks = [f"body.{index}." for index in range(round(3 * share))]
    expected = [
        name
        for name, _ in given.setting.student.named_parameters()
        if not name.startswith(("conv_first.", *blocks))
    ]
    for branch in one.branches:
        assert [name for name, _ in branch.network.named_parameters()] == expected


def test_the_shared_part_of_the_shipped_student() -> None:
    student = edsr(num_block=8)
    taps, skipped = shared_layers(student, "conv_first", "body", 2 / 3)
    assert taps == ["conv_first", "body.4"]
    assert skipped == ["body.0", "body.1", "body.2", "body.3"]


def test_all_branches_teach_the_shared_layers(given: Case) -> None:
    one = grown(given)
    one(given.batch())["branch"].backward()
    network = given.student.network
    shared = [network.get_submodule(name) for name in ("conv_first", "body.0", "body.1")]
    assert all(any(learns(module)) for module in shared)
    assert not any(learns(network.get_submodule("conv_last")))  # the student's own
    assert all(any(learns(branch)) for branch in one.branches)


@pytest.mark.parametrize("per", ["image", "pixel"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_ensemble_lies_between_the_branches(per: Any, size: int) -> None:
    torch.manual_seed(0)
    gate = Gate(6, 3, per)
    feature = 100 * torch.randn(size, 6, 5, 7)
    images = list(torch.rand(3, size, 3, 10, 14))
    shares = gate(feature)
    assert shares.shape == ((size, 3, 1, 1) if per == "image" else (size, 3, 5, 7))
    torch.testing.assert_close(shares.sum(1), torch.ones_like(shares[:, 0]))
    assert shares.min() > 0
    merged, stacked = ensemble(images, shares), torch.stack(images)
    assert (merged > stacked.amin(0) - 1e-6).all() and (merged < stacked.amax(0) + 1e-6).all()


def test_shares_are_those_of_their_branches() -> None:
    images = list(torch.rand(3, 2, 3, 4, 6))
    shares = torch.tensor([[1.0, 0, 0], [0, 0.25, 0.75]])[:, :, None, None]
    merged = ensemble(images, shares)
    torch.testing.assert_close(merged[0], images[0][0])
    torch.testing.assert_close(merged[1], 0.25 * images[1][1] + 0.75 * images[2][1])
    of_pixels = shares.expand(2, 3, 2, 3)
    torch.testing.assert_close(ensemble(images, of_pixels), merged)


def test_a_gate_for_each_pixel_depends_on_it_and_its_normalisation_alone() -> None:
    torch.manual_seed(0)
    gate, feature = Gate(6, 3, "pixel").eval(), torch.randn(1, 6, 5, 7)
    before = gate(feature)
    feature[:, :, 2, 3] += 5
    changed = (gate(feature) != before).any(1)[0]
    assert changed[2, 3] and changed.sum() == 1


def test_single_images_open_the_gate_by_what_came_before() -> None:
    """A batch of one image has no spread; the images before it have."""
    torch.manual_seed(0)
    features = 100 * torch.randn(200, 6, 1, 1) + 50
    one_by_one, at_once = Gate(6, 3, "image"), Gate(6, 3, "image")
    at_once.load_state_dict(one_by_one.state_dict())
    shares = torch.cat([one_by_one(feature[None]) for feature in features])
    expected = at_once(features)
    error = (shares[50:] - expected[50:]).abs().mean()
    assert error < 0.1 < (expected - expected.mean(0)).abs().mean()
    shares.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in one_by_one.parameters())


def test_equal_branches_need_no_distillation(given: Case) -> None:
    terms = build(DISTILLERS["ONE"], given)(given.batch())  # Its new students are copies.
    assert terms["distillation"].item() == pytest.approx(0, abs=1e-6)
    assert terms["branch"].item() == pytest.approx(2 * terms["ensemble"].item())


def test_the_terms_are_those_of_the_equations(given: Case) -> None:
    one = grown(given, rampup_iter=10)
    batch = replace(given.batch(), step=6)
    first, second, third = images_of(one, batch)
    shares = one.gate(batch.student_features["body.1"])
    merged = sum(shares[:, i : i + 1] * image for i, image in enumerate((first, second, third)))
    terms = one(batch)
    distances = [(image - merged).abs().mean() for image in (first, second, third)]
    torch.testing.assert_close(terms["ensemble"], (merged - batch.gt).abs().mean())
    branch = sum((image - batch.gt).abs().mean() for image in (second, third))
    torch.testing.assert_close(terms["branch"], branch)
    torch.testing.assert_close(terms["distillation"], math.exp(-5 / 4) * sum(distances))
    assert terms["distillation"] > 0


def test_distillation_reaches_neither_the_gate_nor_the_ensemble(given: Case) -> None:
    one = grown(given)
    batch = given.batch()
    one(batch)["distillation"].backward()
    assert not any(learns(one.gate))
    with torch.no_grad():
        target = ensemble(images_of(one, batch), one.gate(batch.student_features["body.1"]))
    found = [p.grad.clone() for p in one.branches[0].parameters()]
    one.zero_grad()
    again = given.batch()
    image = one.branches[0](again.lq, again.student_features)
    (rampup(0, 500) * (image - target).abs().mean()).backward()
    for parameter, gradient in zip(one.branches[0].parameters(), found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_gate_learns_from_the_ensemble(given: Case) -> None:
    one = grown(given)
    terms = one(given.batch())
    terms["branch"].backward(retain_graph=True)
    assert not any(learns(one.gate))
    terms["ensemble"].backward()
    assert any(learns(one.gate)) and all(any(learns(branch)) for branch in one.branches)


def test_distillation_rises() -> None:
    assert rampup(0, 80) == math.exp(-5)
    rising = [rampup(step, 80) for step in range(90)]
    assert rising[:80] == sorted(rising[:80]) and rising[79] < 1
    assert set(rising[80:]) == {1.0}
    assert rampup(0, 0) == 1.0


def test_nothing_of_a_batch_is_kept(given: Case) -> None:
    one = grown(given)
    one(given.batch())
    for branch in one.branches:
        assert isinstance(branch, Branch)
        assert all(source.feature is None for source in branch._sources.values())


def test_saved_and_loaded_is_the_same(given: Case) -> None:
    one = grown(given)
    batch = given.batch()
    one(batch)  # moves the gate's running statistics
    other = grown(given)
    other.load_state_dict(one.state_dict())
    expected, found = one(batch), other(batch)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": 1}, "^branches: must be at least 2, the student and one more; not 1"),
        ({"share": 1.2}, "^share: must be at least 0 and at most 1, not 1.2"),
        ({"rampup_iter": -1}, "^rampup_iter: must be at least 0, not -1"),
        ({"stem": "conv_frist"}, "^stem: EDSR has no module 'conv_frist'.*'conv_first'"),
        ({"stem": ""}, "^stem: EDSR has no module ''"),
        ({"body": "bodi"}, "^body: EDSR has no module 'bodi'.*'body'"),
        ({"body": "conv_last"}, "^body: 'conv_last' of EDSR is no row of blocks but Conv2d"),
        ({"body": "upsample", "share": 1.0}, "^body: 'upsample.1' of EDSR gives no feature of"),
        ({"stem": "conv_last", "share": 0.0}, "^stem: 'conv_last' of EDSR gives no feature of"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        build(DISTILLERS["ONE"], case(teachers=[], peers=[]), **options)
