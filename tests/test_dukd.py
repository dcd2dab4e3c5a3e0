"""Properties of DUKD."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import SCALE, agreeing_case, build, case, edsr, terms_of
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers import DISTILLERS, DistillationBatch, Setting
from lsfd.distillers.dukd import augmented, cut_tiles, restored, shrunk
from lsfd.errors import LsfdError

GOLDEN = Path(__file__).parent / "golden" / "dukd.json"

EVERY_PICK = torch.tensor(list(product([False, True], repeat=4))).T
"""All 16 combinations of the four operations, 4 x 16."""


@dataclass
class Function:
    """A network without weights that remembers what it was given."""

    function: Callable[[Tensor], Tensor]
    network: nn.Module = field(default_factory=nn.Identity)
    inputs: list[Tensor] = field(default_factory=list)

    def __call__(
        self, lq: Tensor, replace: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.inputs.append(lq)
        return self.function(lq), {}


def enlarged(images: Tensor) -> Tensor:
    """Nearest neighbour: it commutes with inversion, flips and transposition."""
    return functional.interpolate(images, scale_factor=SCALE, mode="nearest")


def random_images(height: int = 8, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lq = torch.rand(2, 3, height, width, generator=generator)
    return lq, torch.rand(2, 3, SCALE * height, SCALE * width, generator=generator)


def batch_of(
    student: Function, teacher: Function, images: tuple[Tensor, Tensor]
) -> DistillationBatch:
    lq, gt = images
    return DistillationBatch(
        lq, gt, student.function(lq), [teacher.function(lq)], {}, [{}], 1, student, [teacher]
    )


def dukd(**options: Any) -> Any:
    torch.manual_seed(0)
    return DISTILLERS["DUKD"](Setting(SCALE, ()), **options)


def test_every_combination_of_operations_is_undone() -> None:
    images = torch.rand(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    altered = augmented(images, EVERY_PICK)
    torch.testing.assert_close(restored(altered, EVERY_PICK), images)
    assert all(
        torch.equal(a, b) == (i == 0) for i, (a, b) in enumerate(zip(altered, images, strict=True))
    )


def test_the_order_of_the_inverse_matters_for_a_transposition_with_one_flip() -> None:
    images = torch.rand(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    twice = augmented(augmented(images, EVERY_PICK), EVERY_PICK)
    for image, before, (_, horizontal, vertical, transposed) in zip(
        twice, images, EVERY_PICK.T, strict=True
    ):
        fails = bool(transposed & (horizontal ^ vertical))
        assert torch.allclose(image, before) != fails


def test_an_equivariant_student_has_no_consistency_loss() -> None:
    network = Function(enlarged)
    batch = batch_of(network, network, random_images())
    picks = EVERY_PICK[:, :8]
    for each in (picks, ~picks):
        assert dukd().zoom_in(batch, [0, 1, 2, 3], each).item() == pytest.approx(0, abs=1e-6)


def test_a_student_that_is_not_equivariant_has_one() -> None:
    network = Function(lambda x: enlarged(x) + torch.linspace(0, 1, 2 * x.shape[-1]))
    batch = batch_of(network, network, random_images())
    for picked in (False, True):
        loss = dukd().zoom_in(batch, [1], torch.full((4, 2), picked))
        assert (loss > 0.1) == picked


def test_the_teacher_sees_the_clean_tile() -> None:
    student, teacher = Function(enlarged), Function(enlarged)
    batch = batch_of(student, teacher, random_images())
    picks = torch.ones(4, 2, dtype=torch.bool)
    dukd().zoom_in(batch, [1], picks)
    tile = batch.gt[..., :8, 8:]
    assert torch.equal(teacher.inputs[0], tile)
    assert torch.equal(student.inputs[0], augmented(tile, picks))


def test_tiles_lie_on_a_grid_and_are_square() -> None:
    images = torch.arange(24.0).view(1, 1, 4, 6)
    assert cut_tiles(images, 2, [3, 0], 2).flatten(1).tolist() == [[14, 15, 20, 21], [0, 1, 6, 7]]
    student, teacher = Function(enlarged), Function(enlarged)
    dukd(tiles=4)(batch_of(student, teacher, random_images(6, 10)))
    assert student.inputs[0].shape == teacher.inputs[0].shape == (8, 3, 6, 6)


def test_tiles_are_drawn_without_repetition() -> None:
    student = Function(enlarged)
    batch = batch_of(student, Function(enlarged), random_images())
    dukd(tiles=4, probability=0.0)(batch)
    expected = cut_tiles(batch.gt, 8, range(4), 2)
    corners = student.inputs[0][:, 0, 0, 0].tolist()
    assert sorted(corners) == sorted(expected[:, 0, 0, 0].tolist())


def test_probability_is_that_of_each_operation() -> None:
    student, teacher = Function(enlarged), Function(enlarged)
    lq, gt = random_images()
    many = batch_of(student, teacher, (lq.repeat(200, 1, 1, 1), gt.repeat(200, 1, 1, 1)))
    dukd(weights={"zoom_out": 0.0, "zoom_out_pixel": 0.0})(many)
    pairs = zip(student.inputs[0], teacher.inputs[0], strict=True)
    untouched = [torch.equal(seen, clean) for seen, clean in pairs]
    assert sum(untouched) / len(untouched) == pytest.approx(0.7**4, abs=0.05)


def test_zooming_out_shrinks_the_input() -> None:
    student, teacher = Function(enlarged), Function(lambda x: enlarged(x) + 0.25)
    batch = batch_of(student, teacher, random_images(9, 12))
    terms = dukd().zoom_out(batch)
    small = student.inputs[0]
    assert small.shape == (2, 3, 4, 6) and torch.equal(teacher.inputs[0], small)
    assert small.min() >= 0 and small.max() <= 1
    torch.testing.assert_close(terms["zoom_out"], torch.tensor(0.25))
    expected = functional.l1_loss(enlarged(small), batch.lq[..., :8, :])
    torch.testing.assert_close(terms["zoom_out_pixel"], expected)


def test_shrinking_keeps_constants_and_is_bicubic_inside() -> None:
    torch.testing.assert_close(
        shrunk(torch.full((1, 3, 8, 8), 0.3), 2), torch.full((1, 3, 4, 4), 0.3)
    )
    ramp = torch.linspace(0.1, 0.9, 16).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    # Bicubic keeps straight lines; the first and last two pixels see the border.
    torch.testing.assert_close(
        shrunk(ramp, 2)[..., 2:-2], functional.avg_pool2d(ramp, 2)[..., 2:-2]
    )


def test_shrinking_does_not_leave_the_range() -> None:
    edge = (torch.arange(16) > 6).float().view(1, 1, 1, 16).expand(1, 3, 16, 16)
    overshooting = functional.interpolate(edge, (8, 8), mode="bicubic", antialias=True)
    assert overshooting.min() < 0 and overshooting.max() > 1
    torch.testing.assert_close(shrunk(edge, 2), overshooting.clamp(0, 1))


def test_teachers_run_without_gradients() -> None:
    given = case()
    batch = given.batch()
    tracked = []

    def teacher(lq: Tensor) -> Tensor:
        tracked.append(torch.is_grad_enabled())
        return enlarged(lq)

    dukd()(replace(batch, teacher_networks=[Function(teacher)]))
    assert tracked == [False, False]


def test_agreement_costs_nothing_but_the_reconstruction() -> None:
    given = agreeing_case()
    terms = terms_of(build(DISTILLERS["DUKD"], given, probability=0.0), given.batch())
    for name, value in terms.items():
        assert (value.item() == pytest.approx(0, abs=1e-6)) == (name != "zoom_out_pixel"), name


def test_teachers_are_averaged() -> None:
    student, low, high = Function(enlarged), Function(enlarged), Function(lambda x: enlarged(x) + 1)
    batch = batch_of(student, low, random_images())
    both = replace(batch, teacher_networks=[low, high], teachers=batch.teachers * 2)
    for name in ("zoom_in", "zoom_out"):
        value = terms_of(dukd(probability=0.0), both)[name]
        torch.testing.assert_close(value, torch.tensor(0.5))


@pytest.mark.parametrize(
    ("on", "passes"),
    [("output", 0), ("zoom_in", 1), ("zoom_out", 1), ("zoom_out_pixel", 1)],
)
def test_weight_zero_saves_the_passes(on: str, passes: int) -> None:
    student, teacher = Function(enlarged), Function(enlarged)
    off = {name: float(name == on) for name in DISTILLERS["DUKD"].default_weights}
    terms = dukd(weights=off)(batch_of(student, teacher, random_images()))
    assert list(terms) == [on]
    assert len(student.inputs) == passes
    assert len(teacher.inputs) == (passes if on != "zoom_out_pixel" else 0)


def test_both_zooming_out_terms_share_the_students_pass() -> None:
    student, teacher = Function(enlarged), Function(enlarged)
    dukd()(batch_of(student, teacher, random_images()))
    assert [len(images) for images in student.inputs] == [2, 2]
    assert len(teacher.inputs) == 2


def test_gradients_reach_the_student_through_every_term_and_no_teacher() -> None:
    for name in DISTILLERS["DUKD"].default_weights:
        given = case(teachers=[edsr(8, 3, seed=1)])
        batch = given.batch()
        terms_of(build(DISTILLERS["DUKD"], given), batch)[name].backward()
        assert any(p.grad is not None and p.grad.any() for p in given.student.parameters()), name
        assert all(p.grad is None for teacher in given.teachers for p in teacher.parameters())


def test_what_cannot_be_zoomed_is_named() -> None:
    network = Function(enlarged)
    small = batch_of(network, network, random_images(3, 8))
    with pytest.raises(LsfdError, match="gt_size: 6 is too small"):
        dukd()(small)
    assert "zoom_in" in dukd(weights={"zoom_out": 0.0, "zoom_out_pixel": 0.0})(small)
    for options, message in [
        ({"tiles": 0}, "tiles: "),
        ({"tiles": 5}, "tiles: at scale 2 there are 1 to 4, not 5"),
        ({"probability": 1.5}, "probability: "),
    ]:
        with pytest.raises(LsfdError, match=message):
            dukd(**options)
    with pytest.raises(LsfdError, match="scale: "):
        DISTILLERS["DUKD"](Setting(1, ()))


def test_the_terms_are_those_of_the_authors_code() -> None:
    golden = json.loads(GOLDEN.read_text())

    def network(seed: int) -> Function:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.rand(3 * SCALE**2, 3, 3, 3, generator=generator) * 0.1
        return Function(
            lambda x: functional.pixel_shuffle(functional.conv2d(x, weight, padding=1), SCALE)
        )

    generator = torch.Generator().manual_seed(0)
    # A constant frame: the borders are where our way to shrink and the authors' differ.
    lq = torch.full((2, 3, 16, 16), 0.5)
    lq[..., 5:11, 5:11] = 0.3 + 0.4 * torch.rand(2, 3, 6, 6, generator=generator)
    batch = batch_of(network(1), network(2), (lq, torch.rand(2, 3, 32, 32, generator=generator)))
    distiller = dukd()
    terms = distiller(batch) | {
        "zoom_in": distiller.zoom_in(batch, golden["cells"], torch.tensor(golden["picks"]) == 1)
    }
    for name, value in terms.items():
        assert value.item() == pytest.approx(golden[name], rel=1e-5), name
