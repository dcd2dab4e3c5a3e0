"""Properties of SRM, and its values where the paper's code gives other numbers to compare with."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation import build, case, random_batch, setting, terms_of
from helpers import assert_same
from torch import Tensor

from lsfd.distillers import DISTILLERS, DistillationBatch, Setting, srm
from lsfd.distillers.srm import (
    SRM,
    Dictionary,
    SparseDictionary,
    global_loss,
    local_loss,
    sparse_codes,
)
from lsfd.errors import LsfdError
from lsfd.training.model import LSFDModel

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "srm.json").read_text())


def make(given: Setting | None = None, **options: Any) -> SRM:
    torch.manual_seed(0)
    method: SRM = DISTILLERS["SRM"](given or setting(4, 6), **options)
    return method


def stage(method: SRM, name: str, batch: DistillationBatch) -> dict[str, Tensor]:
    return method.stage_terms(next(s for s in method.stages() if s.name == name), batch)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signed_batch(given: Setting, seed: int = 0) -> DistillationBatch:
    """A random batch whose features have both signs, as features before an activation have."""
    batch = random_batch(given, seed)
    return replace(
        batch,
        student_features={
            name: (4 * feature.detach() - 2).requires_grad_()
            for name, feature in batch.student_features.items()
        },
        teacher_features=[
            {name: 4 * feature - 2 for name, feature in features.items()}
            for features in batch.teacher_features
        ],
    )


class TestCodes:
    """Which similarities a pixel keeps."""

    def test_no_more_atoms_than_kept_and_the_largest(self) -> None:
        scores = randn(2, 35, 40)
        codes = sparse_codes(scores, 3)
        assert (codes.count_nonzero(2) == 3).all()
        largest = scores.topk(3, dim=2)
        torch.testing.assert_close(codes.gather(2, largest.indices), largest.values.sigmoid())

    def test_equals_stay_together(self) -> None:
        scores = torch.tensor([2.0, 1.0, 1.0, 0.0]).view(1, 1, 4)
        assert sparse_codes(scores, 2).count_nonzero() == 3

    def test_large_scores_are_told_apart(self) -> None:
        """Their sigmoids are all 1 in float32."""
        scores = torch.tensor([40.0, 60.0, 50.0, 30.0]).view(1, 1, 4)
        assert sparse_codes(scores, 2).flatten().tolist() == [0, 1, 1, 0]

    def test_number_of_atoms(self) -> None:
        wide = setting(32, 64)
        for options, size, kept in (
            ({}, 128, 2),
            ({"dictionary_ratio": 1.5, "sparsity": 0.01}, 96, 1),
            ({"dictionary_ratio": 1.5, "sparsity": 0.001}, 96, 1),
            ({"dictionary_size": 200, "sparsity": 0.05}, 200, 10),
        ):
            for _, theirs, own in make(wide, **options)._dictionaries():
                assert theirs.atoms.shape == (64, size) and own.atoms.shape == (32, size)
                assert theirs.kept == kept


class TestDictionaryStage:
    """Only dictionaries of the teacher's features are learned, without the student."""

    def test_the_student_does_not_run(self) -> None:
        method = make()
        batch = signed_batch(setting(4, 6))
        nothing = replace(batch, student=torch.empty(0), student_features={})
        stage(method, "dictionary", nothing)["reconstruction"].backward()
        for _, theirs, own in method._dictionaries():
            assert theirs.atoms.grad is not None and theirs.offset.grad is not None
            assert own.atoms.grad is None and own.offset.grad is None
        assert method.stages()[0].runs_student is False
        assert method.stages()[0].lr == 1e-2

    def test_atoms_that_are_not_kept_get_no_gradient(self) -> None:
        dictionary = SparseDictionary(6, 40, kept=2)
        pixels = randn(1, 4, 6)
        dictionary.reconstruction_error(pixels).sum().backward()
        assert dictionary.atoms.grad is not None
        kept = sparse_codes(dictionary.scores(pixels), 2).amax((0, 1)) > 0
        assert torch.equal(dictionary.atoms.grad.abs().sum(0) > 0, kept)

    def test_an_error_of_one_explains_nothing(self) -> None:
        """The scale makes the error a share of the feature's energy, whatever its units."""
        method = make(sparsity=0.1)
        for _, theirs, _own in method._dictionaries():
            theirs.atoms.data.zero_()
        batch = signed_batch(setting(4, 6))
        value = stage(method, "dictionary", batch)["reconstruction"]
        torch.testing.assert_close(value, torch.tensor(3.0))

    def test_it_learns(self) -> None:
        method, batch = make(), signed_batch(setting(4, 6))
        optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
        values = []
        for _ in range(60):
            value = stage(method, "dictionary", batch)["reconstruction"]
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < 0.7 * values[0]


class TestScale:
    """What features are divided by."""

    @pytest.mark.parametrize("times", [1.0, 255.0])
    def test_units_of_features_do_not_matter(self, times: float) -> None:
        batch = signed_batch(setting(4, 6))
        other = replace(
            batch,
            student_features={k: times * v for k, v in batch.student_features.items()},
            teacher_features=[{k: times * v for k, v in batch.teacher_features[0].items()}],
        )
        for name in ("dictionary", "labels"):
            expected, values = (stage(make(), name, each) for each in (batch, other))
            for term, value in values.items():
                torch.testing.assert_close(value, expected[term])

    def test_the_first_batch_sets_the_teachers_for_good(self) -> None:
        method, batch = make(), signed_batch(setting(4, 6))
        assert all(theirs.scale.item() == 0 for _, theirs, _ in method._dictionaries())
        for name, seed in (("dictionary", 0), ("dictionary", 1), ("labels", 2)):
            stage(method, name, signed_batch(setting(4, 6), seed))
            for (_, tap), theirs, _ in method._dictionaries():
                feature = batch.teacher_features[0][tap.teacher]
                torch.testing.assert_close(theirs.scale, feature.square().mean().sqrt())

    def test_features_without_a_size_do_not_set_it(self) -> None:
        dictionary = SparseDictionary(4, 10, kept=1)
        for value in (0.0, math.inf, math.nan):
            dictionary.pixels(torch.full((1, 4, 2, 2), value))
            assert dictionary.scale.item() == 0
        dictionary.pixels(torch.full((1, 4, 2, 2), 3.0))
        assert dictionary.scale.item() == 3

    @pytest.mark.parametrize("logits", ["sigmoid", "pre_sigmoid"])
    def test_the_student_gains_nothing_by_larger_features(self, logits: str) -> None:
        batch = signed_batch(setting(4, 6))
        terms = stage(make(local_logits=logits), "labels", batch)
        torch.stack(list(terms.values())).sum().backward()
        for feature in batch.student_features.values():
            assert feature.grad is not None and feature.grad.norm() > 1e-3
            outward = (feature.grad * feature).sum() / feature.grad.norm() / feature.norm()
            assert abs(outward.item()) < 1e-5

    def test_features_of_zero(self) -> None:
        feature = torch.zeros(1, 4, 2, 2, requires_grad=True)
        pixels = Dictionary(4, 10).pixels(feature)
        pixels.sum().backward()
        assert not pixels.any() and feature.grad is not None and feature.grad.isfinite().all()

    def test_a_resumed_run_goes_on_with_it(self) -> None:
        method, batch = make(), signed_batch(setting(4, 6))
        stage(method, "labels", batch)
        resumed = SRM(setting(4, 6))
        resumed.load_state_dict(method.state_dict())
        later = signed_batch(setting(4, 6), seed=1)
        expected, values = stage(method, "labels", later), stage(resumed, "labels", later)
        assert all(torch.equal(values[name], expected[name]) for name in values)


class TestLabelStage:
    """The student learns, with dictionaries of its own, what atoms the teacher uses."""

    def test_labels_are_shares_without_gradient(self) -> None:
        dictionary = SparseDictionary(6, 40, kept=2)
        usage, first = dictionary.labels(randn(3, 35, 6))
        assert usage.shape == (3, 40) and first.shape == (3, 35)
        assert not usage.requires_grad
        assert (usage >= 0).all() and (usage <= 1).all()
        assert (usage.sum(1) <= 2).all()
        assert first.dtype == torch.int64 and first.min() >= 0 and first.max() < 40

    def test_only_the_student_and_its_dictionaries_learn(self) -> None:
        method, given = make(case().setting), case()
        before = copy.deepcopy(method.teacher_dictionaries.state_dict())
        batch = given.batch()
        optimizer = torch.optim.Adam([*method.parameters(), *given.student.parameters()], 0.01)
        stage(method, "dictionary", batch)  # Sets the scales.
        terms = stage(method, "labels", batch)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        for _, theirs, own in method._dictionaries():
            assert theirs.atoms.grad is None and theirs.offset.grad is None
            assert own.atoms.grad is not None and own.atoms.grad.abs().sum() > 0
            assert own.offset.grad is not None
        for name, value in method.teacher_dictionaries.state_dict().items():
            assert torch.equal(value, before[name]) or name.endswith("scale")
        moved = {n for n, p in given.student.named_parameters() if p.grad is not None}
        assert any("body" in name for name in moved)
        assert not any("upsample" in name for name in moved)

    @pytest.mark.parametrize("name", ["global", "local"])
    def test_each_kind_of_label_alone(self, name: str) -> None:
        batch = signed_batch(setting(4, 6))
        both, alone = stage(make(), "labels", batch), stage(make(labels=name), "labels", batch)
        assert both.keys() == {"global", "local"} and alone.keys() == {name}
        torch.testing.assert_close(alone[name], both[name])

    def test_the_floor_of_the_global_loss_is_the_labels_entropy(self) -> None:
        usage = 0.1 + 0.8 * torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
        # One pixel for each image: its similarity is the mean.
        agreeing = usage.logit()[:, None]
        floor = global_loss(agreeing, usage)
        entropy = -(usage * usage.log() + (1 - usage) * (1 - usage).log()).mean(1)
        torch.testing.assert_close(floor, entropy)
        assert (global_loss(agreeing + 0.1, usage) > floor).all()
        assert (global_loss(agreeing - 0.1, usage) > floor).all()

    def test_the_floor_of_the_local_loss(self) -> None:
        """With similarities for logits a student that is always right hardly lowers the loss."""
        first = torch.arange(128).view(1, 128)
        nothing, perfect = torch.zeros(1, 128, 128), 200 * torch.eye(128)[None] - 100
        floor = math.log(1 + 127 / math.e)
        assert floor == pytest.approx(3.865, abs=5e-4)
        assert local_loss(perfect, first, "sigmoid").item() == pytest.approx(floor, abs=1e-4)
        assert local_loss(nothing, first, "sigmoid").item() == pytest.approx(math.log(128))
        assert local_loss(perfect, first, "pre_sigmoid").item() == pytest.approx(0, abs=1e-4)
        assert local_loss(nothing, first, "pre_sigmoid").item() == pytest.approx(math.log(128))

    def test_local_logits_reach_the_loss(self) -> None:
        batch = signed_batch(setting(4, 6))
        one, two = (
            stage(make(local_logits=logits), "labels", batch)
            for logits in ("sigmoid", "pre_sigmoid")
        )
        assert one["global"] == two["global"] and one["local"] != two["local"]

    def test_teachers_are_averaged(self) -> None:
        one, two = make(), make(setting(4, 6, teachers=2))
        for dictionaries in ("teacher_dictionaries", "student_dictionaries"):
            state = getattr(one, dictionaries).state_dict()
            for half in (getattr(two, dictionaries)[:3], getattr(two, dictionaries)[3:]):
                half.load_state_dict(state)
        batch = signed_batch(setting(4, 6))
        twice = replace(batch, teacher_features=batch.teacher_features * 2)
        for name in ("dictionary", "labels"):
            expected, values = stage(one, name, batch), stage(two, name, twice)
            for term, value in values.items():
                torch.testing.assert_close(value, expected[term])


def test_resume_within_the_label_stage_is_exact(run_options: Callable[..., dict[str, Any]]) -> None:
    method = {"type": "SRM", "dictionary_iter": 2, "label_iter": 6, "search": "tree", "beam": 1}
    whole, resumed = (LSFDModel(run_options(distillers=[method])) for _ in range(2))
    steps(whole, range(1, 5))
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()), Path("4.state"))
    for model in (whole, resumed):
        steps(model, range(5, 10))
    assert_same(resumed.state_dict(), whole.state_dict())


def steps(model: LSFDModel, iterations: range) -> None:
    for iteration in iterations:
        generator = torch.Generator().manual_seed(iteration)
        lq = torch.rand(2, 3, 8, 8, generator=generator)
        model.feed_data({"lq": lq, "gt": torch.rand(2, 3, 16, 16, generator=generator)})
        model.optimize_parameters(iteration)


class TestTaskPhase:
    """What remains after the stages is where the student starts from."""

    def test_the_dictionaries_take_no_part(self) -> None:
        given = case()
        method = build(SRM, given)
        before = terms_of(method, given.batch())["output"]
        for parameter in method.parameters():
            parameter.data.fill_(math.nan)
        after = terms_of(method, given.batch())["output"]
        assert torch.equal(after, before)
        after.backward()
        assert all(parameter.grad is None for parameter in method.parameters())

    def test_stages_come_first(self) -> None:
        stages = make(dictionary_iter=7, label_iter=11, dictionary_lr=0.5).stages()
        assert [(s.name, s.iterations, s.runs_student, s.lr) for s in stages] == [
            ("dictionary", 7, False, 0.5),
            ("labels", 11, True, None),
        ]


class TestParts:
    """Where atoms are many, images are compared with them one after another."""

    @pytest.mark.parametrize("name", ["dictionary", "labels"])
    def test_parts_change_nothing(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        results = []
        for values_at_once in (srm.VALUES_AT_ONCE, 1):
            monkeypatch.setattr(srm, "VALUES_AT_ONCE", values_at_once)
            method, batch = make(), signed_batch(setting(4, 6))
            terms = stage(method, name, batch)
            torch.stack(list(terms.values())).sum().backward()
            learned = [p.grad for p in method.parameters() if p.grad is not None]
            student = [f.grad for f in batch.student_features.values() if f.grad is not None]
            results.append([*terms.values(), *learned, *student])
        assert len(results[0]) == (7 if name == "dictionary" else 11)
        torch.testing.assert_close(results[1], results[0])

    def test_similarities_are_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(srm, "VALUES_AT_ONCE", 35 * 40)
        kept: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        method, batch = make(dictionary_size=40), signed_batch(setting(4, 6))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            stage(method, "labels", batch)
        assert max(kept) < 35 * 40


class TestTree:
    """The labels of a large dictionary are looked up."""

    def test_large_dictionaries_have_one(self) -> None:
        for size, search, expected in (
            (9_999, "auto", False),
            (10_000, "auto", True),
            (10_000, "exact", False),
            (100, "tree", True),
        ):
            method = make(dictionary_size=size, search=search)
            for _, theirs, own in method._dictionaries():
                assert (theirs.tree is not None) == expected
                assert not hasattr(own, "tree")

    def test_all_leaves_find_what_trying_all_finds(self) -> None:
        exact, tree = SparseDictionary(6, 100, kept=3), SparseDictionary(6, 100, 3, beam=10)
        tree.load_state_dict(exact.state_dict(), strict=False)
        for expected, value in zip(
            exact.labels(randn(2, 35, 6)), tree.labels(randn(2, 35, 6)), strict=True
        ):
            torch.testing.assert_close(value, expected)

    def test_few_leaves_find_mostly_the_same(self) -> None:
        """Atoms differ in length, and a tree of directions alone would find 0.6 of them."""
        exact, tree = SparseDictionary(4, 400, kept=3), SparseDictionary(4, 400, 3, beam=2)
        lengths = (4 * torch.rand(400, generator=torch.Generator().manual_seed(0)) - 2).exp()
        exact.atoms.data = randn(4, 400) * lengths
        tree.load_state_dict(exact.state_dict(), strict=False)
        pixels = randn(2, 200, 4, seed=1)
        assert (tree.labels(pixels)[1] == exact.labels(pixels)[1]).float().mean() > 0.75

    def test_leaves_always_hold_enough_atoms(self) -> None:
        dictionary = SparseDictionary(6, 100, kept=25, beam=1)
        usage, first = dictionary.labels(randn(1, 1, 6))
        assert usage.count_nonzero() == 25
        assert usage.argmax() == first

    def test_it_grows_anew_after_the_atoms_changed(self) -> None:
        dictionary, pixels = SparseDictionary(6, 100, kept=3, beam=1), randn(2, 35, 6)
        dictionary.labels(pixels)
        assert dictionary.grown and dictionary.tree is not None
        before = dictionary.tree.order.clone()
        dictionary.atoms.data = randn(6, 100, seed=1)
        dictionary.reconstruction_error(pixels)
        assert not dictionary.grown
        dictionary.labels(pixels)
        assert dictionary.grown and not torch.equal(dictionary.tree.order, before)

    def test_a_resumed_run_has_the_same_tree(self) -> None:
        dictionary, pixels = SparseDictionary(6, 100, kept=3, beam=1), randn(2, 35, 6)
        dictionary.labels(pixels)
        resumed = SparseDictionary(6, 100, kept=3, beam=1)
        resumed.load_state_dict(dictionary.state_dict())
        assert resumed.grown
        for expected, value in zip(dictionary.labels(pixels), resumed.labels(pixels), strict=True):
            assert torch.equal(value, expected)

    def test_atoms_of_zero_are_no_obstacle(self) -> None:
        dictionary = SparseDictionary(6, 100, kept=3, beam=2)
        dictionary.atoms.data.zero_()
        usage, _ = dictionary.labels(randn(1, 4, 6))
        assert torch.isfinite(usage).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.0}, "sparsity: must be more than 0 and at most 1, not 0"),
        ({"sparsity": 1.5}, "sparsity: must be more than 0 and at most 1, not 1.5"),
        ({"dictionary_ratio": 0.2}, "dictionary_ratio: 0.2 times 6 channels"),
        ({"dictionary_size": 1}, "dictionary_size: must be at least 2, not 1"),
        ({"dictionary_iter": -1}, "dictionary_iter: must be at least 0, not -1"),
        ({"label_iter": -1}, "label_iter: must be at least 0, not -1"),
        ({"dictionary_iter": 0}, "dictionary_iter: 0 leaves the labels to random atoms"),
        ({"dictionary_lr": 0.0}, "dictionary_lr: must be more than 0, not 0"),
        ({"beam": 0}, "beam: must be at least 1, not 0"),
    ],
    ids=str,
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LsfdError) as error:
        make(**options)
    assert str(error.value).startswith(message)


class TestOfficialCode:
    """The numbers that the paper's code gives."""

    @pytest.fixture
    def given(self) -> tuple[SRM, DistillationBatch]:
        """Inputs as ``how`` of the file says; scales are 1, because that code has none."""
        method = make(dictionary_size=50, sparsity=0.06)
        generator = torch.Generator().manual_seed(0)
        batch = random_batch(method.setting)
        student, teacher = {}, {}
        for (_, tap), theirs, own in method._dictionaries():
            teacher[tap.teacher] = torch.randn(2, 6, 5, 7, generator=generator)
            feature = torch.randn(2, 4, 5, 7, generator=generator)
            student[tap.student] = feature / feature.square().mean().sqrt()
            theirs.scale.fill_(1)
            for dictionary, channels in ((theirs, 6), (own, 4)):
                dictionary.atoms.data = torch.randn(channels, 50, generator=generator)
                dictionary.offset.data = torch.randn(1, generator=generator)[0]
        return method, replace(batch, student_features=student, teacher_features=[teacher])

    def test_reconstruction(self, given: tuple[SRM, DistillationBatch]) -> None:
        method, batch = given
        value = stage(method, "dictionary", batch)["reconstruction"]
        assert value.item() == pytest.approx(GOLDEN["reconstruction"], rel=1e-5)
        value.backward()
        self.compare([theirs for _, theirs, _ in method._dictionaries()], "teacher")

    def test_labels(self, given: tuple[SRM, DistillationBatch]) -> None:
        method, batch = given
        theirs = method.teacher_dictionaries[0]
        usage, first = theirs.labels(theirs.pixels(batch.teacher_features[0]["t0"]))
        assert usage[0].tolist() == pytest.approx(GOLDEN["usage"], abs=1e-6)
        assert first[0].tolist() == GOLDEN["first"]

    def test_matching(self, given: tuple[SRM, DistillationBatch]) -> None:
        method, batch = given
        terms = stage(method, "labels", batch)
        value = terms["global"] + terms["local"]
        assert terms["global"].item() == pytest.approx(GOLDEN["global"], rel=1e-5)
        assert terms["local"].item() == pytest.approx(GOLDEN["local"], rel=1e-5)
        assert value.item() == pytest.approx(GOLDEN["global_local"], rel=1e-5)
        value.backward()
        self.compare([own for _, _, own in method._dictionaries()], "student")

    @staticmethod
    def compare(dictionaries: Sequence[Dictionary], whose: str) -> None:
        """Compare the gradients."""
        atoms, offsets = ([getattr(d, n).grad for d in dictionaries] for n in ("atoms", "offset"))
        norms = [gradient.norm().item() for gradient in atoms]
        assert norms == pytest.approx(GOLDEN[f"gradient_norms_of_{whose}_atoms"], rel=1e-4)
        values = [gradient.item() for gradient in offsets]
        assert values == pytest.approx(GOLDEN[f"gradients_of_{whose}_offsets"], rel=1e-4)
