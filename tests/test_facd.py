"""Properties of FACD."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import agreeing, random_batch, setting
from torch import Tensor

from lsfd.distillers import DISTILLERS, DistillationBatch, Setting
from lsfd.distillers.facd import contrast, teacher_is_better
from lsfd.errors import LsfdError


def facd(given: Setting, **options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["FACD"](given, **options)


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def with_gate(batch: DistillationBatch, gate: list[bool]) -> DistillationBatch:
    """The teacher is right where the gate is open, the student elsewhere."""
    is_open = torch.tensor(gate).view(-1, 1, 1, 1)
    return replace(batch, gt=torch.where(is_open, batch.teachers[0], batch.student.detach()))


def test_gate_is_open_where_the_teacher_is_strictly_better() -> None:
    gt = rand(1, 3, 4, 6).expand(3, -1, -1, -1)
    errors = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1, 1)
    batch = replace(
        random_batch(setting()),
        gt=gt,
        student=gt + 0.2,
        # An error of the other sign and in one channel: only the mean magnitude counts.
        teachers=[gt - 3 * errors * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)],
    )
    assert teacher_is_better(batch, 0).tolist() == [1, 0, 0]
    equal = replace(batch, teachers=[batch.student])
    assert teacher_is_better(equal, 0).tolist() == [0, 0, 0]


def test_contrast_of_each_image() -> None:
    student, teacher = rand(2, 3, 4, 5, 5)
    for negatives, used in ((2, [[1, 2], [0, 2], [0, 1]]), (1, [[2], [0], [1]])):
        values = contrast(student, teacher, negatives)
        for image, others in enumerate(used):
            near = (student[image] - teacher[image]).abs().mean()
            far = torch.stack([(student[image] - teacher[k]).abs().mean() for k in others]).mean()
            torch.testing.assert_close(values[image], near / far)


def test_images_that_are_all_alike_give_one() -> None:
    """The same and the other image are equally far."""
    teacher = rand(1, 4, 5, 5).expand(3, -1, -1, -1)
    student = torch.zeros_like(teacher)
    torch.testing.assert_close(contrast(student, teacher, 2), torch.ones(3))


def test_the_scale_of_features_does_not_matter() -> None:
    student, teacher = rand(2, 3, 4, 5, 5)
    torch.testing.assert_close(
        contrast(student, teacher, 2), contrast(100 * student, 100 * teacher, 2)
    )


def test_closed_patches_add_nothing() -> None:
    given = setting(4, 6)
    batch, distiller = random_batch(given), facd(given)
    both, first, second, none = (
        distiller(with_gate(batch, gate))["contrastive"]
        for gate in ([True, True], [True, False], [False, True], [False, False])
    )
    assert none == 0 < first
    torch.testing.assert_close(both, first + second)
    torch.testing.assert_close(
        both, facd(given, adaptive=False)(with_gate(batch, [False, False]))["contrastive"]
    )


def test_closed_patches_take_no_gradient() -> None:
    given = setting(4, 6)
    batch = random_batch(given)
    facd(given)(with_gate(batch, [False, True]))["contrastive"].backward()
    gradient = batch.student_features["s0"].grad
    assert gradient is not None
    assert not gradient[0].any() and gradient[1].any()
    assert batch.student.grad is None  # The gate itself has no gradient.


def test_each_teacher_has_its_own_gate() -> None:
    given = setting(4, 6, teachers=2)
    batch = random_batch(given)
    distiller = facd(given)
    worse = replace(batch, gt=batch.teachers[0], teachers=[batch.teachers[0], batch.student + 9])
    alone = facd(setting(4, 6))
    alone.regressors.layers = distiller.regressors.layers[:3]
    first = replace(worse, teachers=worse.teachers[:1], teacher_features=worse.teacher_features[:1])
    torch.testing.assert_close(distiller(worse)["contrastive"], alone(first)["contrastive"] / 2)


def test_agreement_of_features_costs_nothing_behind_an_open_gate() -> None:
    batch = agreeing(random_batch(setting()))
    value = facd(setting(), adaptive=False)(batch)["contrastive"]
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_more_negatives_than_images() -> None:
    given = setting(4, 6)
    batch = random_batch(given)  # of two images
    values = [facd(given, negatives=k, adaptive=False)(batch)["contrastive"] for k in (1, 9)]
    assert values[0] == values[1] > 0


def test_no_negatives_are_refused() -> None:
    with pytest.raises(LsfdError, match="negatives: must be at least 1"):
        facd(setting(), negatives=0)
    batch = random_batch(setting())
    one = replace(batch, lq=batch.lq[:1])
    with pytest.raises(LsfdError, match=r"batch_size_per_gpu: .*at least 2"):
        facd(setting())(one)
