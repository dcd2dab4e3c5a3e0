"""Properties of CSD and of the feature network that it shares with DCKD."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import agreeing_case, build, case, random_batch, setting, terms_of
from torch import Tensor

from lsfd.distillers import DISTILLERS, DistillationBatch, Setting
from lsfd.distillers.perception import VGG_LEVEL_WEIGHTS, contrastive_ratio, others
from lsfd.errors import LsfdError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "csd.json").read_text())

SHAPES = [(4, 8, 8), (6, 4, 4), (8, 2, 2), (8, 2, 2), (8, 1, 1)]


def csd(given: Setting, **options: Any) -> Any:
    return DISTILLERS["CSD"](given, **options)


def contrastive(batch: DistillationBatch, **options: Any) -> Tensor:
    """The term with the teacher's features; random_batch's networks have other taps than case's."""
    networks = case()
    batch = replace(batch, student_network=networks.student, teacher_networks=networks.teachers)
    return terms_of(csd(networks.setting, network="teacher", **options), batch)["contrastive"]


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder of downloads, without downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth"


def random_images(seed: int) -> Callable[[int, int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda size, side: torch.rand(size, 3, side, side, generator=generator)


def test_features_agree_with_the_official_code() -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher, negatives = (
        [torch.randn(size, *shape, generator=generator) for shape in SHAPES] for size in (3, 3, 2)
    )
    loss = sum(
        weight * contrastive_ratio(anchor, positive, negative.split(1))
        for weight, anchor, positive, negative in zip(
            VGG_LEVEL_WEIGHTS, student, teacher, negatives, strict=True
        )
    )
    assert float(loss) == pytest.approx(GOLDEN["features"], rel=1e-5)


def test_images_agree_with_the_official_code(vgg_file: str) -> None:
    draw = random_images(2)
    student, teacher, lq = draw(3, 32).requires_grad_(), draw(3, 32), draw(3, 8)
    given = replace(setting(), scale=4)
    batch = replace(random_batch(setting()), lq=lq, student=student, teachers=[teacher])
    distiller = csd(given, network="vgg", vgg_weights=vgg_file, negatives=2)
    loss = distiller(batch)["contrastive"]
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["images"], rel=1e-4)
    assert student.grad is not None
    assert student.grad.norm().item() == pytest.approx(GOLDEN["gradient"], rel=1e-3)


def test_vgg_is_neither_trained_nor_saved(vgg_file: str) -> None:
    given = agreeing_case()
    distiller = csd(given.setting, vgg_weights=vgg_file)
    assert distiller.network == "vgg"
    assert not list(distiller.parameters())
    assert not any(isinstance(value, Tensor) for value in distiller.state_dict().values())
    assert terms_of(distiller, given.batch())["contrastive"] == 0


def test_auto_takes_vgg_where_it_is(vgg_file: str, empty_hub: Path) -> None:
    assert csd(setting()).network == "teacher"
    empty_hub.symlink_to(vgg_file)
    assert csd(setting()).network == "vgg"
    assert csd(setting(), network="teacher").network == "teacher"


def test_missing_and_wrong_weights_are_named(empty_hub: Path, tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=rf"vgg_weights: there is no file {empty_hub}"):
        csd(setting(), network="vgg")
    with pytest.raises(LsfdError, match="vgg_weights: there is no file nowhere"):
        csd(setting(), vgg_weights="nowhere")
    wrong = tmp_path / "wrong.pth"
    for content in ({"features.0.weight": torch.zeros(3)}, torch.zeros(3)):
        torch.save(content, wrong)
        with pytest.raises(LsfdError, match=r"vgg_weights: .*wrong\.pth does not hold"):
            csd(setting(), vgg_weights=str(wrong))
    wrong.write_text("nothing")
    with pytest.raises(LsfdError, match=r"vgg_weights: .*wrong\.pth does not hold"):
        csd(setting(), vgg_weights=str(wrong))


def test_a_run_does_not_change_its_feature_network(vgg_file: str) -> None:
    began = csd(setting(), network="teacher").state_dict()
    csd(setting(), network="teacher").load_state_dict(began)
    with pytest.raises(LsfdError, match="network: the run began with 'teacher'"):
        csd(setting(), vgg_weights=vgg_file).load_state_dict(began)


def test_the_ratio_ignores_the_scale_of_features() -> None:
    generator = torch.Generator().manual_seed(0)
    anchor, positive, *negatives = torch.randn(5, 2, 4, 3, 3, generator=generator)
    expected = (anchor - positive).abs().mean() / sum((anchor - n).abs().mean() for n in negatives)
    torch.testing.assert_close(contrastive_ratio(anchor, positive, negatives), expected)
    scaled = contrastive_ratio(9 * anchor, 9 * positive, [9 * n for n in negatives])
    torch.testing.assert_close(scaled, expected)


def test_equal_images_have_finite_gradients() -> None:
    anchor = torch.zeros(2, 3, 4, 4, requires_grad=True)
    for positive in (torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)):
        loss = contrastive_ratio(anchor, positive, [torch.zeros(1, 3, 4, 4)])
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(anchor.grad).all()  # type: ignore[arg-type]


def test_no_image_is_among_its_others() -> None:
    images = torch.arange(5)
    rows = torch.stack([images, *others(images, 3)], 1)
    assert all(len(set(row.tolist())) == 4 for row in rows)


def test_nearer_to_the_teacher_costs_less() -> None:
    batch = random_batch(setting())
    positive = batch.teachers[0]
    values = [
        float(contrastive(replace(batch, student=positive.lerp(batch.gt, share))))
        for share in (0.0, 0.25, 0.5, 1.0)
    ]
    assert values == sorted(values) and values[0] == 0 < values[1]


def test_farther_from_the_negatives_costs_less() -> None:
    batch = random_batch(setting())
    flat = replace(batch, lq=batch.lq.mean((2, 3), keepdim=True).expand_as(batch.lq))
    far = replace(flat, lq=5 * flat.lq)
    assert contrastive(far) < contrastive(flat)


def test_more_negatives_than_images() -> None:
    batch = random_batch(setting())  # of two images
    assert contrastive(batch, negatives=9) == contrastive(batch, negatives=2)
    assert contrastive(batch, negatives=1) > contrastive(batch, negatives=2)
    other = [contrastive(batch, negatives=k, own_negative=False) for k in (1, 9)]
    assert other[0] == other[1]


def test_one_image() -> None:
    batch = random_batch(setting())
    one = replace(
        batch,
        lq=batch.lq[:1],
        student=batch.student[:1],
        teachers=[batch.teachers[0][:1]],
    )
    assert contrastive(one) > 0
    with pytest.raises(LsfdError, match=r"own_negative: .*at least 2"):
        contrastive(one, own_negative=False)
    with pytest.raises(LsfdError, match="negatives: must be at least 1"):
        contrastive(one, negatives=0)


def test_own_negative_is_left_out() -> None:
    """A student as bad as the bicubic image is at distance 0 of its own negative only."""
    batch = random_batch(setting())
    size = batch.student.shape[2:]
    bicubic = torch.nn.functional.interpolate(batch.lq, size, mode="bicubic")
    bad = replace(batch, student=bicubic)
    # With both images as negatives each has one at distance 0: the sum is that of the other one.
    torch.testing.assert_close(
        contrastive(bad, negatives=2), contrastive(bad, negatives=1, own_negative=False)
    )


def test_the_teacher_reads_one_piece_of_every_image() -> None:
    given = case()
    distiller = build(DISTILLERS["CSD"], given, network="teacher")
    seen = []
    for seed in (0, 0, 1, 2):
        image = given.batch().student.detach().requires_grad_()
        torch.manual_seed(seed)
        distiller(replace(given.batch(), student=image))["contrastive"].backward()
        rows, columns = image.grad.abs().sum((0, 1)).nonzero(as_tuple=True)  # type: ignore[union-attr]
        window = [int(v) for v in (rows.min(), rows.max(), columns.min(), columns.max())]
        assert window[1] - window[0] < 8 and window[3] - window[2] < 10  # the size of lq
        seen.append(window)
    assert seen[0] == seen[1]
    assert len({tuple(window) for window in seen}) > 1
