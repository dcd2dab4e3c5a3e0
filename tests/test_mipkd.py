"""Properties of the MiPKD-style method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from distillation import Case, agreeing_case, build, case, edsr, random_batch, setting, terms_of
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers import DISTILLERS, Network
from lsfd.errors import LsfdError


def mipkd(given: Case, **options: Any) -> Any:
    return build(DISTILLERS["MiPKD"], given, **options)


def equal_widths() -> Case:
    """Student and teacher of one width and different weights: all coders start as identity."""
    return case(edsr(6, 3), [edsr(6, 4, seed=1)])


@dataclass
class Counted:
    """A network that remembers where its features were replaced."""

    wrapped: Network
    starts: list[str] = field(default_factory=list)

    @property
    def network(self) -> nn.Module:
        return self.wrapped.network

    def __call__(
        self, lq: Tensor, replace: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.starts += list(replace or {})
        return self.wrapped(lq, replace)


def test_the_mask_is_random_in_three_dimensions() -> None:
    torch.manual_seed(0)
    distiller = mipkd(equal_widths(), ratio=0.3)
    mask = distiller._mask(torch.empty(4, 8, 16, 16))
    assert mask.shape == (4, 8, 16, 16) and mask.dtype == torch.bool
    assert mask.float().mean().item() == pytest.approx(0.3, abs=0.03)
    for dimension in range(4):
        first, second = mask.unbind(dimension)[:2]
        assert not torch.equal(first, second)


def test_without_the_student_the_feature_term_is_auto_encoding() -> None:
    given = setting(4, 6)
    torch.manual_seed(0)
    distiller: Any = DISTILLERS["MiPKD"](given, latent=5)  # Another width: nothing is lossless.
    distiller.ratio = 0.0
    batch = random_batch(given)
    _, loss = distiller.mix_features(batch, 0)
    expected = torch.zeros(())
    for tap, codec in zip(given.taps[0], distiller.codecs[0], strict=True):
        theirs = batch.teacher_features[0][tap.teacher]
        own = batch.student_features[tap.student]
        there_and_back = codec.decode_teacher(codec.encode_teacher(theirs))
        expected = expected + 2 * functional.l1_loss(there_and_back, theirs)
        there_and_back = codec.decode_student(codec.encode_student(own))
        expected = expected + functional.l1_loss(there_and_back, own)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(f.grad is None or not f.grad.any() for f in batch.student_features.values())


def test_the_students_share_is_the_ratio() -> None:
    """With identity coders a constant difference counts where the mask takes the student."""
    given = setting(6, 6)
    batch = random_batch(given)
    shifted = replace(
        batch,
        student_features={
            f"s{name[1:]}": feature + 2 for name, feature in batch.teacher_features[0].items()
        },
    )
    for ratio in (0.25, 1.0):
        value = terms_of(DISTILLERS["MiPKD"](given, ratio=ratio, weights={"block": 0.0}), shifted)[
            "feature"
        ]
        assert value.item() == pytest.approx(3 * 2 * ratio, rel=0.2 if ratio < 1 else 1e-6)


def test_a_path_of_the_teacher_alone_gives_the_teachers_image() -> None:
    given = equal_widths()
    batch = given.batch()
    distiller = mipkd(given)
    latent = batch.teacher_features[0][given.setting.taps[0][0].teacher]
    image = distiller.mix_blocks(batch, 0, latent, [False] * 3)
    torch.testing.assert_close(image, batch.teachers[0])


def test_a_path_of_the_student_alone_gives_the_students_image() -> None:
    given = equal_widths()
    batch = given.batch()
    distiller = mipkd(given)
    latent = batch.student_features[given.setting.taps[0][0].student]
    image = distiller.mix_blocks(batch, 0, latent, [True] * 3)
    torch.testing.assert_close(image, batch.student)


def test_a_mixed_path_changes_networks_at_the_taps() -> None:
    given = case()
    batch = given.batch()
    distiller = mipkd(given)
    taps, codecs = given.setting.taps[0], distiller.codecs[0]
    latent = torch.rand(3, taps[0].teacher_channels, 8, 10)
    first = codecs[0].decode_student(latent)
    _, features = given.student(batch.lq, {taps[0].student: first})
    second = codecs[1].decode_teacher(codecs[1].encode_student(features[taps[1].student]))
    _, features = given.teachers[0](batch.lq, {taps[1].teacher: second})
    third = codecs[2].decode_student(codecs[2].encode_teacher(features[taps[2].teacher]))
    expected, _ = given.student(batch.lq, {taps[2].student: third})
    image = distiller.mix_blocks(batch, 0, latent, [True, False, True])
    torch.testing.assert_close(image, expected)


@pytest.mark.parametrize(
    ("coins", "own", "theirs"),
    [
        ([True, True, True], [0], []),
        ([False, True, True], [1], [0]),
        ([False, False, True], [2], [0]),
        ([True, False, True], [0, 2], [1]),
    ],
)
def test_each_run_of_equal_coins_takes_one_pass(
    coins: list[bool], own: list[int], theirs: list[int]
) -> None:
    given = case()
    student, teacher = Counted(given.student), Counted(given.teachers[0])
    batch = replace(given.batch(), student_network=student, teacher_networks=[teacher])
    taps = given.setting.taps[0]
    latent = torch.rand(3, taps[0].teacher_channels, 8, 10)
    mipkd(given).mix_blocks(batch, 0, latent, coins)
    assert student.starts == [taps[index].student for index in own]
    assert teacher.starts == [taps[index].teacher for index in theirs]


def test_the_teachers_blocks_are_frozen_and_let_gradients_through() -> None:
    given = case()
    batch = given.batch()
    distiller = mipkd(given)
    latent, _ = distiller.mix_features(batch, 0)
    distiller.mix_blocks(batch, 0, latent, [False] * 3).square().mean().backward()
    inner = given.student.network.body[0].conv1.weight
    assert inner.grad is not None and inner.grad.any()
    assert all(p.grad is None for p in given.teachers[0].parameters())


def test_auto_encoding_does_not_pull_the_student() -> None:
    given = setting(4, 6)
    distiller: Any = DISTILLERS["MiPKD"](given, weights={"block": 0.0})
    gradients = []
    for scale in (1.0, 0.0):
        torch.manual_seed(0)
        batch = random_batch(given)
        for codec in distiller.codecs[0]:
            # Whatever the student's decoder gives.
            codec.decode_student.projection.weight.data.mul_(scale)
        distiller(batch)["feature"].backward()
        gradients.append(batch.student_features["s0"].grad)
    assert torch.equal(*gradients)


def test_all_coins_come_up_and_only_now_and_then() -> None:
    given = case()
    student, teacher = Counted(given.student), Counted(given.teachers[0])
    batch = replace(given.batch(), student_network=student, teacher_networks=[teacher])
    distiller = mipkd(given)
    torch.manual_seed(0)
    for _ in range(20):
        distiller(batch)
    taps = given.setting.taps[0]
    assert set(student.starts) == {tap.student for tap in taps}
    assert set(teacher.starts) == {tap.teacher for tap in taps}
    assert 20 < len(student.starts) + len(teacher.starts) < 60


def test_weight_zero_saves_the_passes() -> None:
    given = case()
    student, teacher = Counted(given.student), Counted(given.teachers[0])
    batch = replace(given.batch(), student_network=student, teacher_networks=[teacher])
    terms = mipkd(given, weights={"block": 0.0})(batch)
    assert terms.keys() == {"output", "feature"}
    assert not student.starts and not teacher.starts


def test_agreement_survives_every_path() -> None:
    given = agreeing_case()
    batch = given.batch()
    distiller = mipkd(given)
    latent, _ = distiller.mix_features(batch, 0)
    for number in range(8):
        coins = [bool(number >> stage & 1) for stage in range(3)]
        image = distiller.mix_blocks(batch, 0, latent, coins)
        torch.testing.assert_close(image, batch.teachers[0])


def test_the_latent_width_is_an_option() -> None:
    given = case()
    distiller = mipkd(given, latent=5)
    assert all(codec.encode_student.projection.out_channels == 5 for codec in distiller.codecs[0])
    latent, _ = distiller.mix_features(given.batch(), 0)
    assert latent.shape == (3, 5, 8, 10)
    assert terms_of(distiller, given.batch())["block"] > 0


def test_options_out_of_range_are_named() -> None:
    given = case()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"latent": 0}, "latent: "),
        ({"ratio": 0.0}, "ratio: "),
        ({"ratio": 1.1}, "ratio: "),
    ]
    for options, message in wrong:
        with pytest.raises(LsfdError, match=message):
            mipkd(given, **options)
