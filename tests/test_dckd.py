"""Properties of DCKD; what it shares with CSD is tested there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import Case, build, case, terms_of, total
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS
from lsfd.distillers.dckd import History, add_noise, blurred
from lsfd.distillers.perception import VGG_LEVEL_WEIGHTS, contrastive_ratio
from lsfd.errors import LsfdError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "dckd.json").read_text())

SHAPES = [(4, 8, 8), (6, 4, 4), (8, 2, 2), (8, 2, 2), (8, 1, 1)]


def dckd(given: Case, **options: Any) -> Any:
    return build(DISTILLERS["DCKD"], given, network="teacher", **options)


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_features_agree_with_the_official_code() -> None:
    generator = torch.Generator().manual_seed(3)
    loss = torch.zeros(())
    for weight, shape in zip(VGG_LEVEL_WEIGHTS, SHAPES, strict=True):
        anchor, positive, *negatives = (
            torch.randn(3, *shape, generator=generator) for _ in range(7)
        )
        loss += weight * contrastive_ratio(anchor, positive, negatives)
    assert loss.item() == pytest.approx(GOLDEN["features"], rel=1e-5)


def test_history_follows_in_steps() -> None:
    student, history = nn.Linear(3, 2), History(refresh=10, keep=0.25)
    student.register_buffer("count", torch.tensor(1))
    first = student.weight.detach().clone()
    history.follow(student, 7)
    with torch.no_grad():
        student.weight.add_(1)
    student.count = torch.tensor(2)
    for step in (8, 16):
        history.follow(student, step)
        assert torch.equal(history.weights["weight"], first)
    history.follow(student, 17)
    moved = 0.25 * first + 0.75 * (first + 1)
    torch.testing.assert_close(history.weights["weight"], moved)
    assert history.weights["count"] == 2
    history.follow(student, 17)  # A second part of the same batch.
    torch.testing.assert_close(history.weights["weight"], moved)


def test_history_is_the_student_with_other_weights() -> None:
    convolution = nn.Conv2d(3, 3, 1)
    student = nn.Sequential(convolution, nn.Dropout(0.5))
    history, image = History(1, 0.0), rand(1, 3, 4, 4)
    history.follow(student, 1)
    with torch.no_grad():
        before = student.eval()(image)
        convolution.weight.add_(1)
    student.train()
    weight = convolution.weight.detach().clone()
    after = history(student, image)
    assert torch.equal(after, before) and not after.requires_grad
    assert all(module.training for module in student.modules())
    assert torch.equal(convolution.weight, weight)


def test_history_is_saved_but_not_trained() -> None:
    given = case()
    one, batch = dckd(given, refresh=2), given.batch()
    terms_of(one, batch)
    assert not list(one.parameters())
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = dckd(given, refresh=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for parameter in given.student.parameters():
            parameter.mul_(1.1)
    for step in (2, 3, 4):
        now = replace(given.batch(), step=step)
        assert total(terms_of(one, now)) == total(terms_of(other, now))
    for name, weight in one.history.weights.items():
        assert torch.equal(weight, other.history.weights[name])


def test_negatives_come_from_the_history() -> None:
    """A student that has left its past behind is farther from the negatives."""
    given = case()
    distiller = dckd(given)
    near = terms_of(distiller, given.batch())["contrastive"]
    for name in distiller.history.weights:
        distiller.history.weights[name] = 2 * distiller.history.weights[name]
    far = terms_of(distiller, given.batch())["contrastive"]
    assert far < near


def test_only_the_students_output_gets_a_gradient() -> None:
    given = case()
    batch = given.batch()
    image = batch.student.detach().requires_grad_()
    terms_of(dckd(given), replace(batch, student=image))["contrastive"].backward()
    assert image.grad is not None and image.grad.any()
    assert all(parameter.grad is None for parameter in given.student.parameters())


def test_degraded_inputs_are_new_each_time() -> None:
    given = case()
    distiller, lq = dckd(given, noise=255.0, blur=1.0), rand(3, 3, 8, 8)
    torch.manual_seed(0)
    first, second = distiller._degraded(lq), distiller._degraded(lq)
    assert not torch.equal(first, second) and not torch.equal(first, lq)
    for image in (first, second):
        assert image.min() >= 0 and image.max() <= 1
    torch.manual_seed(0)
    assert torch.equal(distiller._degraded(lq), first)


def test_noise() -> None:
    torch.manual_seed(0)
    noise = add_noise(torch.zeros(400, 3, 6, 6), 0.5)
    is_grey = (noise == noise[:, :1]).all((1, 2, 3))
    assert 0.4 < is_grey.float().mean() < 0.6
    deviations = noise.square().mean((1, 2, 3)).sqrt()
    assert deviations.mean().item() == pytest.approx(0.25, abs=0.03)
    assert deviations.max() < 0.75 and deviations.min() < 0.05


def test_blur() -> None:
    torch.manual_seed(0)
    flat = torch.full((2, 3, 5, 6), 0.4)
    torch.testing.assert_close(blurred(flat, 2.0), flat)
    image = rand(4, 3, 9, 9)
    smooth = blurred(image, 2.0)
    assert (smooth.var((1, 2, 3)) < image.var((1, 2, 3))).all()
    point = torch.zeros(3, 1, 15, 15)
    point[:, :, 7, 7] = 1
    spread = blurred(point, 1.5)
    torch.testing.assert_close(spread, spread.mT)
    torch.testing.assert_close(spread, spread.flip(2))
    torch.testing.assert_close(spread.sum((1, 2, 3)), torch.ones(3))
    assert len(set(spread[:, 0, 7, 7].tolist())) == 3  # Each image has its own deviation.
    torch.testing.assert_close(blurred(image, 0.05), image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives: "),
        ({"noise": 0.0}, "noise: "),
        ({"blur": -1.0}, "noise: "),
        ({"refresh": 0}, "refresh: "),
        ({"keep": 1.5}, "keep: "),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        dckd(case(), **options)
