"""Properties that every distillation method of the registry has."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace

import pytest
import torch
from distillation import OTHER_STUDENTS, agreeing_case, build, case, edsr, rcan, terms_of, total
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS, Distiller
from lsfd.errors import LsfdError

SMALLEST_IS_NOT_ZERO: dict[str, str] = {
    "DUKD": "the student sees altered tiles, and its image is compared with the input as well",
    "FEED": "translators start at random, so that equal features have unequal translations",
    "ONE": "branches and ensemble learn from the ground truth",
    "SGN": "two of its objectives compare with the ground truth",
}
"""Methods whose terms have another minimum than 0, and why."""

TEACHERS_HAVE_AN_ORDER: dict[str, str] = {
    "FEED": "each teacher has a translator of its own, which starts at random",
    "MTKD": "the teachers are the aggregator's input channels, each with weights of its own",
    "MiPKD": "each teacher is mixed with the student at random of its own",
}
"""Methods whose value depends on the order of the teachers, and why."""

MAY_BE_SILENT: dict[str, str] = {
    "FACD": "features of patches where the teacher is not better, as in these tests, count nothing",
    "ONE": "in these tests branches begin as copies of the student, whose ensemble teaches nothing",
    "FReTAL": "its feature term is 0 before there is a store, which its stages fill",
}
"""Methods that have a term of 0 for networks that differ, and why."""

IMAGES_ONLY = {"Plain"}
"""Methods without any term of their own."""


@pytest.fixture(params=sorted(DISTILLERS))
def method(request: pytest.FixtureRequest) -> type[Distiller]:
    return DISTILLERS[request.param]


def learner(method: type[Distiller], *size: int) -> nn.Module:
    """A student for a method."""
    return edsr(*size, kind=OTHER_STUDENTS.get(method.__name__, "EDSR"))


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_says_what_it_is_and_where_it_comes_from(method: type[Distiller]) -> None:
    about = inspect.getdoc(method)
    assert about and about.splitlines()[0].endswith(".")
    assert (method.year is None) == (method.paper == "")
    module = inspect.getmodule(method)
    assert module is not None and module.__doc__ and len(module.__doc__) > 150


def test_terms_are_those_declared(method: type[Distiller]) -> None:
    given = case(learner(method))
    terms = terms_of(build(method, given), given.batch())
    assert terms.keys() == method.default_weights.keys()
    for value in terms.values():
        assert value.shape == () and value.dtype == torch.float32
        assert value > 0 or method.__name__ in MAY_BE_SILENT


def test_agreement_costs_nothing(method: type[Distiller]) -> None:
    if method.__name__ in SMALLEST_IS_NOT_ZERO:
        pytest.skip(SMALLEST_IS_NOT_ZERO[method.__name__])
    given = agreeing_case(student=learner(method))
    for name, value in terms_of(build(method, given), given.batch()).items():
        assert value.item() == pytest.approx(0, abs=1e-6), name


def test_zero_features_are_finite(method: type[Distiller]) -> None:
    given = case(learner(method))
    distiller = build(method, given)
    batch = given.batch()
    zeros = {
        name: torch.zeros_like(feature, requires_grad=True)
        for name, feature in batch.student_features.items()
    }
    zero_teachers = [
        {name: torch.zeros_like(feature) for name, feature in features.items()}
        for features in batch.teacher_features
    ]
    flat = replace(batch, student_features=zeros, teacher_features=zero_teachers)
    terms = terms_of(distiller, flat)
    total(terms).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    found = [tensor.grad for tensor in zeros.values() if tensor.grad is not None]
    for gradient in [*found, *gradients(distiller), *gradients(given.student)]:
        assert torch.isfinite(gradient).all()


def test_the_student_learns_and_no_teacher_does(method: type[Distiller]) -> None:
    given = case(learner(method), teachers=[edsr(8, 6, seed=1), rcan(seed=2)])
    before = [copy.deepcopy(teacher.state_dict()) for teacher in given.teachers]
    distiller = build(method, given)
    optimizer = torch.optim.Adam([*given.student.parameters(), *distiller.parameters()])
    loss = total(terms_of(distiller, given.batch()))
    loss.backward()
    moved = sum(gradient.abs().sum() for gradient in gradients(given.student))
    assert moved > 0 or method.__name__ in IMAGES_ONLY
    optimizer.step()
    for teacher, state in zip(given.teachers, before, strict=True):
        assert not gradients(teacher)
        assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())


def test_every_parameter_learns(method: type[Distiller]) -> None:
    """In the method's terms, a stage or a turn of it; anything else would be dead weight."""
    given = case(learner(method))
    distiller, batch = build(method, given), given.batch()
    total(terms_of(distiller, batch)).backward()
    for stage in distiller.stages():
        total(distiller.stage_terms(stage, given.batch())).backward()
    for turn in distiller.turns():
        total(distiller.turn_terms(turn, given.batch())).backward()
    for name, parameter in distiller.named_parameters():
        assert parameter.grad is not None, name


def test_the_order_of_teachers_does_not_matter(method: type[Distiller]) -> None:
    if method.__name__ in TEACHERS_HAVE_AN_ORDER:
        pytest.skip(TEACHERS_HAVE_AN_ORDER[method.__name__])
    given = agreeing_case(2, learner(method))
    distiller = build(method, given)
    batch = given.batch()
    other = [
        {name: 2 * feature + 0.1 for name, feature in batch.teacher_features[0].items()},
        batch.teacher_features[1],
    ]
    images = [batch.teachers[0] * 0.5, batch.teachers[1] + 0.2]
    one = replace(batch, teachers=images, teacher_features=other)
    two = replace(batch, teachers=images[::-1], teacher_features=other[::-1])
    first, second = terms_of(distiller, one), terms_of(distiller, two)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((6, 2), "edsr"), ((4, 3), "rcan"), ((10, 5), "edsr"), ("rcan", "edsr")],
)
def test_any_widths_depths_and_architectures(
    method: type[Distiller], student: str | tuple[int, int], teacher: str
) -> None:
    if isinstance(student, str) and method.__name__ in OTHER_STUDENTS:
        pytest.skip("the method has a student of its own")
    small = rcan() if isinstance(student, str) else learner(method, *student)
    given = case(small, [edsr(8, 6, seed=1) if teacher == "edsr" else rcan(seed=1)])
    loss = total(terms_of(build(method, given), given.batch()))
    loss.backward()
    assert torch.isfinite(loss)


def test_bf16(method: type[Distiller]) -> None:
    given = case(learner(method))
    distiller = build(method, given)
    with torch.autocast("cpu", torch.bfloat16):
        terms = terms_of(distiller, given.batch())
        stages = [distiller.stage_terms(stage, given.batch()) for stage in distiller.stages()]
        turns = [distiller.turn_terms(turn, given.batch()) for turn in distiller.turns()]
    for each in [terms, *stages, *turns]:
        for value in each.values():
            assert value.dtype == torch.float32 and torch.isfinite(value)
        total(each).backward()
    assert all(torch.isfinite(g).all() for g in [*gradients(distiller), *gradients(given.student)])


def test_stages_leave_the_teacher_alone(method: type[Distiller]) -> None:
    given = case(learner(method))
    distiller = build(method, given)
    names = [stage.name for stage in distiller.stages()]
    assert len(set(names)) == len(names)
    for stage in distiller.stages():
        given.student.zero_grad()
        batch = given.batch()
        if not stage.runs_student:
            batch = replace(batch, student=batch.lq.new_empty(0), student_features={})
        terms = distiller.stage_terms(stage, batch)
        assert all(value.shape == () and value.dtype == torch.float32 for value in terms.values())
        total(terms).backward()
        assert bool(gradients(given.student)) == stage.runs_student
        assert not any(gradients(teacher) for teacher in given.teachers)


def test_turns_train_what_they_say(method: type[Distiller]) -> None:
    """What a turn trains is trained there alone; networks only where the turn says so."""
    given = case(learner(method))
    distiller = build(method, given)
    networks = [given.student, *given.peers]
    names = [turn.name for turn in distiller.turns()]
    assert len(set(names)) == len(names)
    total(terms_of(distiller, given.batch())).backward()
    common = {id(p) for p in distiller.parameters() if p.grad is not None}
    for turn in distiller.turns():
        for module in [*networks, distiller]:
            module.zero_grad()
        terms = distiller.turn_terms(turn, given.batch())
        assert all(value.shape == () and value.dtype == torch.float32 for value in terms.values())
        total(terms).backward()
        own = {id(p) for p in distiller.turn_parameters(turn)}
        assert {id(p) for p in distiller.parameters() if p.grad is not None} == own
        assert not own & common
        assert any(gradients(network) for network in networks) == turn.trains_networks
        assert not any(gradients(teacher) for teacher in given.teachers)


def test_the_students_output_is_unaffected(method: type[Distiller]) -> None:
    given = case(learner(method))
    image = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        before = given.student.network(image)
        terms_of(build(method, given), given.batch())
        assert torch.equal(given.student.network(image), before)
        assert given.student.network.state_dict().keys() == learner(method).state_dict().keys()


def test_wrong_weights_are_named(method: type[Distiller]) -> None:
    given = case(learner(method))
    with pytest.raises(LsfdError, match=r"weights\.featur"):
        build(method, given, weights={"featur": 1.0})
    for term in method.default_weights:
        with pytest.raises(LsfdError, match="at least 0"):
            build(method, given, weights={term: -1.0})
