"""FReTAL: cells, the store, and what it costs to leave them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from distillation import SCALE, agreeing_case, build, case, edsr
from torch import Tensor

from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller, Setting
from lsfd.distillers.fretal import (
    MEMORY,
    FeatureStore,
    PatchCells,
    gradient_energy,
    psnr,
)
from lsfd.errors import LsfdError

FReTAL = DISTILLERS["FReTAL"]


def patches(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of a teacher and ground truths, of many qualities and textures."""
    generator = torch.Generator().manual_seed(seed)
    gt = 0.5 + torch.randn(count, 3, 8, 8, generator=generator) * torch.linspace(
        0.02, 0.2, count
    ).view(-1, 1, 1, 1)
    order = torch.randperm(count, generator=generator)
    noise = torch.randn(gt.shape, generator=generator)
    return gt + noise * torch.linspace(0.01, 0.3, count)[order].view(-1, 1, 1, 1), gt


def looked(distiller: Distiller, *batches: DistillationBatch) -> Distiller:
    """Let a method look at the same batches in each of its stages."""
    with torch.no_grad():
        for stage in distiller.stages():
            for batch in batches:
                assert distiller.stage_terms(stage, batch) == {}
    return distiller


def test_the_looks_learn_nothing_and_need_no_student() -> None:
    distiller = FReTAL(case().setting, quantile_iter=3, store_iter=7)
    assert [(s.iterations, s.learns, s.runs_student) for s in distiller.stages()] == [
        (3, False, False),
        (7, False, False),
    ]
    assert not list(distiller.parameters())


def test_a_copy_of_the_teacher_has_no_output_term() -> None:
    given = agreeing_case()
    distiller = looked(build(FReTAL, given), given.batch(6))
    terms = distiller(given.batch(4))
    assert terms["output"].item() == 0
    # Its features are the teacher's, and all patches that filled the store have its means.
    assert distiller(given.batch(6))["feature"].item() == pytest.approx(0, abs=1e-9)
    assert 0 < terms["feature"] < 10


def test_bins_hold_equal_shares_and_classes_halves() -> None:
    image, gt = patches(200)
    cells = PatchCells(5)
    for part, true in zip(image.chunk(4), gt.chunk(4), strict=True):
        cells.look(part, true)
    member = cells(image, gt)
    assert member.shape == (10, 200)
    assert torch.equal(member.sum(0), torch.ones(200))
    assert member.view(5, 2, 200).sum((1, 2)).tolist() == [40] * 5
    assert member.view(5, 2, 200).sum((0, 2)).tolist() == [100, 100]
    quality = psnr(image, gt)
    means = [quality[member.view(5, 2, 200).sum(1)[k] > 0].mean() for k in range(5)]
    assert means == sorted(means)
    textured = member.view(5, 2, 200).sum(0)[1] > 0
    assert gradient_energy(gt)[textured].min() > gradient_energy(gt)[~textured].max()


def test_psnr_and_gradient_energy() -> None:
    gt = torch.zeros(2, 3, 4, 4)
    assert psnr(gt + torch.tensor([0.1, 1.0]).view(2, 1, 1, 1), gt).tolist() == pytest.approx(
        [20, 0], abs=1e-4
    )
    assert torch.isfinite(psnr(gt, gt)).all()
    ramp = torch.arange(4.0).expand(1, 3, 4, 4)
    assert gradient_energy(ramp).item() == 1 == gradient_energy(ramp.transpose(2, 3)).item()
    assert gradient_energy(gt).tolist() == [0, 0]


def test_a_full_memory_takes_in_no_more() -> None:
    cells = PatchCells(3)
    image, gt = patches(MEMORY - 3)
    cells.look(image, gt)
    assert cells.seen == MEMORY - 3
    cells.look(*patches(5, seed=1))
    assert cells.seen == MEMORY
    before = copy.deepcopy(cells.state_dict())
    cells.look(*patches(5, seed=2))
    assert all(torch.equal(value, before[name]) for name, value in cells.state_dict().items())


def by_hand(student: Tensor, stored: Tensor, cells: list[int], store_cells: list[int]) -> Tensor:
    """The sum over cells that both sides have, patch by patch."""
    total = torch.zeros(())
    for cell in set(cells) & set(store_cells):
        mine = torch.stack([v for v, c in zip(student, cells, strict=True) if c == cell]).mean(0)
        its = torch.stack([v for v, c in zip(stored, store_cells, strict=True) if c == cell])
        total += (mine - its.mean(0)).square().mean()
    return total / stored.var(0, correction=0).mean()


def member(cells: list[int], count: int = 4) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(cells), count).T.float()


@pytest.mark.parametrize("width", [1, 3])
def test_the_feature_term_by_hand_with_cells_that_are_empty_on_either_side(width: int) -> None:
    torch.manual_seed(0)
    stored, student = 5 + torch.randn(6, width), torch.randn(5, width)
    store_cells, cells = [0, 0, 1, 1, 1, 3], [0, 0, 2, 3, 3]  # 1: not in the batch; 2: not stored.
    store = FeatureStore(4, width)
    store.add(stored[:2], member(store_cells[:2]))
    store.add(stored[2:], member(store_cells[2:]))
    expected = by_hand(student, stored, cells, store_cells)
    torch.testing.assert_close(store(student, member(cells)), expected)


def test_patches_of_empty_cells_get_no_gradient() -> None:
    store = FeatureStore(4, 1)
    store.add(torch.tensor([[1.0], [2.0]]), member([0, 3]))
    values = torch.tensor([[5.0], [6.0], [7.0]], requires_grad=True)
    store(values, member([0, 1, 2])).backward()
    assert values.grad is not None
    assert values.grad[0] != 0 and values.grad[1:].abs().sum() == 0
    only_empty = store(values, member([1, 1, 2]))
    assert only_empty == 0


def test_training_changes_nothing_of_the_store() -> None:
    given = case()
    distiller = looked(build(FReTAL, given), given.batch(6))
    before = copy.deepcopy(distiller.state_dict())
    terms = distiller(given.batch(4))
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in distiller.state_dict().items())


def test_both_looks_go_on_from_their_state() -> None:
    given = case()
    batches = [given.batch(size) for size in (3, 4, 5)]
    whole = looked(build(FReTAL, given), *batches)
    with torch.no_grad():
        now = build(FReTAL, given)
        for stage in now.stages():
            for batch in batches:
                resumed = build(FReTAL, given)
                resumed.load_state_dict(now.state_dict())
                resumed.stage_terms(stage, batch)
                now = resumed
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in now.state_dict().items())


@pytest.mark.parametrize("channels", ["mean", "each"])
def test_the_feature_term_moves_the_student_towards_the_store(channels: str) -> None:
    given = case(edsr(8, 3), [edsr(8, 3, seed=1)])
    distiller = looked(build(FReTAL, given, channels=channels, bins=2), given.batch(6))
    optimizer = torch.optim.Adam(given.student.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = distiller(given.batch(6))["feature"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_feature_term_has_no_unit() -> None:
    """Features in 0..255 or in 0..1 give the same."""
    given = case()
    batch = given.batch(6)
    large = replace(
        batch,
        student_features={n: 255 * f for n, f in batch.student_features.items()},
        teacher_features=[
            {n: 255 * f for n, f in features.items()} for features in batch.teacher_features
        ],
    )
    terms = [looked(build(FReTAL, given), each)(each)["feature"] for each in (batch, large)]
    assert terms[0] > 0
    torch.testing.assert_close(*terms, rtol=1e-3, atol=1e-5)


def test_a_filled_store_is_finite_and_float32_for_zeros_and_bf16() -> None:
    given = case()
    batch = given.batch(6)
    distiller = looked(build(FReTAL, given), batch)
    zeros = {n: torch.zeros_like(f).requires_grad_() for n, f in batch.student_features.items()}
    value = distiller(replace(batch, student_features=zeros))["feature"]
    value.backward()
    assert torch.isfinite(value)
    assert all(f.grad is not None and torch.isfinite(f.grad).all() for f in zeros.values())
    with torch.autocast("cpu", torch.bfloat16):
        low = distiller(batch)["feature"]
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, distiller(batch)["feature"])


def test_teachers_have_stores_of_their_own_and_are_averaged() -> None:
    networks = [edsr(8, 6, seed=1), edsr(8, 6, seed=3)]
    alone = []
    for network in networks:
        given = case(teachers=[network])
        alone.append(looked(build(FReTAL, given), given.batch(6))(given.batch(6))["feature"])
    given = case(teachers=networks)
    both = looked(build(FReTAL, given), given.batch(6))(given.batch(6))["feature"]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bins": 0}, "bins: must be at least 1"),
        ({"quantile_iter": -1}, "quantile_iter: must be at least 0"),
        ({"store_iter": -1}, "store_iter: must be at least 0"),
        ({"quantile_iter": 0}, "quantile_iter: 0 leaves the store without limits"),
        ({"channels": "each"}, "channels: each needs features of equal width"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], words: str) -> None:
    setting: Setting = case().setting
    assert setting.scale == SCALE
    with pytest.raises(LsfdError, match=words):
        FReTAL(setting, **options)  # type: ignore[arg-type]
