"""NaN, infinity, black and constant images: named, skipped or stopped, and without a trace."""

from __future__ import annotations

import copy
import inspect
import io
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from distillation import OTHER_STUDENTS, SCALE, agreeing_case, build, case, edsr, sections_of, total
from helpers import assert_same, in_group
from option_texts import message
from torch import Tensor, nn

from lsfd.config.load import options_from_dict
from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller
from lsfd.errors import LsfdError
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.image import psnr_and_ssim
from lsfd.training import model as training_model
from lsfd.training.compared import final_scores
from lsfd.training.distributed import Processes
from lsfd.training.model import LSFDModel
from lsfd.training.records import append_record, read_records
from lsfd.training.run import Run
from lsfd.training.tally import LOGGER
from lsfd.training.validation import validate, validation_sets

Options = Callable[..., dict[str, Any]]
NAN = float("nan")


# What a step leaves behind that is not taken.


class _Poison(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * NAN


class Faulty(Distiller):
    """Breaks in the way that ``fault`` says, in every step; keeps running statistics."""

    default_weights: ClassVar = {"term": 1.0, "other": 1.0}
    fault: ClassVar[str] = ""

    def __init__(self, setting: Any, weights: dict[str, float] | None = None) -> None:
        super().__init__(setting, weights)
        self.norm = nn.BatchNorm2d(3)
        self.regressor = nn.Conv2d(3, 3, 1)

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        images = self.regressor(batch.student)
        if self.fault in ("loss", "inf"):
            images = images + (NAN if self.fault == "loss" else math.inf)
        if self.fault == "second part" and batch.gt.mean() > 0.5:
            images = images * NAN
        if self.fault == "gradient":
            images = _Poison.apply(images)
        return {"term": self.norm(images).mean(), "other": batch.student.mean()}


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that makes ``Faulty`` break in some way from now on."""
    monkeypatch.setitem(DISTILLERS, "Faulty", Faulty)
    monkeypatch.setattr(LOGGER, "propagate", True)
    yield lambda kind: setattr(Faulty, "fault", kind)
    Faulty.fault = ""


def batch(size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = {"lq": torch.rand(size, 3, 8, 8, generator=generator)}
    images["gt"] = torch.rand(size, 3, 16, 16, generator=generator) * 0.4
    images["gt"][size // 2 :] += 0.6  # The second part of two is the bright one.
    return images


def state_of(model: LSFDModel) -> dict[str, Any]:
    """All that a checkpoint holds but the count of what was skipped."""
    state = {key: value for key, value in model.state_dict().items() if key != "skipped"}
    state["log"] = model.loss_means.state()
    return copy.deepcopy(state)


def made(options: dict[str, Any]) -> LSFDModel:
    """A model that has taken two good steps."""
    torch.manual_seed(0)
    model = LSFDModel(options_from_dict(options), Processes())
    for step in (1, 2):
        model.feed_data(batch(seed=step))
        model.optimize_parameters(step)
    assert model.skipped.total == 0
    return model


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("loss", "l_faulty_term is nan"),
        ("inf", "l_faulty_term is nan"),  # what batch normalisation makes of it
        ("gradient", "the gradient of the student (conv_first.weight and "),
        ("second part", "l_faulty_term is nan"),
    ],
)
def test_a_skipped_step_is_named_and_leaves_no_trace(
    run_options: Options,
    fault: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    kind: str,
    named: str,
    accumulate: int,
) -> None:
    if kind == "second part" and accumulate == 1:
        pytest.skip("there is one part")
    options = run_options(distillers=[{"type": "Faulty"}], train={"accumulate": accumulate})
    model = made(options)
    before = state_of(model)
    fault(kind)
    model.feed_data(batch(seed=3))
    model.optimize_parameters(3)
    assert_same(state_of(model), before)
    assert model.skipped.total == 1
    (line,) = [record.getMessage() for record in caplog.records if record.name == "lsfd"]
    assert line.startswith(f"iteration 3: skipped, {named}")
    assert "l_pix" not in line and "l_faulty_other" not in line
    fault("")
    model.optimize_parameters(3)
    taken, steps = (state["log"][1]["l_pix"] for state in (state_of(model), before))
    assert taken == steps + 1, "the next step is taken"


def test_whose_gradient_it_was_is_told(
    run_options: Options, fault: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    model = made(run_options(distillers=[{"type": "Faulty"}], train={"clip_grad_norm": 1.0}))
    hook = model.step.distillers["faulty"].regressor.weight.register_hook(lambda g: g * NAN)
    model.optimize_parameters(3)
    assert "the gradient of the distiller faulty (regressor.weight)" in caplog.text
    assert "student" not in caplog.text
    hook.remove()


@pytest.mark.parametrize("turn", [1, 2])
def test_a_skipped_turn_is_counted_and_leaves_no_trace(
    run_options: Options, fault: Callable[[str], None], caplog: pytest.LogCaptureFixture, turn: int
) -> None:
    model = made(run_options(**sections_of("AFD", 2), train={"max_skipped": 2}))
    method = model.step.distillers["afd"]
    module = method.discriminators[0] if turn == 1 else method.transfers[1]
    own = {name for name, _ in module.named_parameters()}
    assert own
    terms = type(method).turn_terms
    calls: list[str] = []

    def broken(self: Any, its_turn: Any, its_batch: DistillationBatch) -> dict[str, Tensor]:
        calls.append(its_turn.name)
        found = terms(self, its_turn, its_batch)
        wrong = (turn == 2) == its_turn.trains_networks
        return {name: value * NAN if wrong else value for name, value in found.items()}

    before = copy.deepcopy(module.state_dict())
    states = copy.deepcopy([each.state_dict()["state"] for each in model.optimizers])
    method.__class__ = type("AFD", (type(method),), {"turn_terms": broken})
    model.feed_data(batch(seed=3))
    model.optimize_parameters(3)
    assert calls == ["discriminator", "adversarial"], "one turn's fault is none of the other's"
    assert_same(dict(module.state_dict()), dict(before))
    assert_same(model.optimizers[turn].state_dict()["state"], states[turn])
    assert model.skipped.total == 1
    assert f"l_afd_{calls[turn - 1]}" in caplog.text and "is nan" in caplog.text
    with pytest.raises(LsfdError, match="2 steps in a row"):
        model.optimize_parameters(4)


@pytest.mark.parametrize("key", ["lq", "gt"])
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_bad_images_are_named_first(
    run_options: Options,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[str], None],
    key: str,
    value: float,
) -> None:
    """Such as a program may feed; a packed store holds bytes, which have no NaN."""
    model = made(run_options())
    before = state_of(model)
    images = batch(seed=3)
    images[key][1, 2, 3, 4] = value
    model.feed_data(images)
    model.optimize_parameters(3)
    assert_same(state_of(model), before)
    assert f"iteration 3: skipped, the batch's {key} held NaN or infinity" in caplog.text


def together(processes: Processes, options: dict[str, Any]) -> tuple[int, str, list[float]]:
    """What a process counts, logs and has learned when the second one gets a bad image."""
    told = io.StringIO()
    LOGGER.addHandler(logging.StreamHandler(told))
    model = LSFDModel(options_from_dict(options), processes)
    model.feed_data(batch(seed=1))
    model.optimize_parameters(1)
    weights = copy.deepcopy(dict(model.net_g.state_dict()))
    images = batch(seed=2)
    images["gt"][0] = NAN if processes.rank == 1 else 0.5
    model.feed_data(images)
    model.optimize_parameters(2)
    assert_same(dict(model.net_g.state_dict()), weights)
    return model.skipped.total, told.getvalue(), weights["conv_last.bias"].tolist()


def test_processes_skip_a_step_together(run_options: Options) -> None:
    (first, told, weights), (second, silence, same) = in_group(2, together, run_options())
    assert (first, second) == (1, 1)
    assert "iteration 2: skipped, " in told and silence == ""
    assert "process 1: the batch's gt held NaN or infinity" in told
    assert weights == same


@pytest.mark.parametrize("shape", [(2, 3, 24, 24), (2, 3, 1, 1), (1, 3, 16, 16), (2, 16, 16)])
def test_a_batch_of_another_scale_is_named(run_options: Options, shape: tuple[int, ...]) -> None:
    """PyTorch would broadcast some of these, and train on nonsense."""
    model = LSFDModel(options_from_dict(run_options()), Processes())
    said = message(model.feed_data, {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(shape)})
    assert f"lq (2, 3, 8, 8) and gt {shape} cannot be trained on: at scale 2" in said


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("module", ["conv_last", "body.2"])
def test_a_teacher_that_gives_nan_stops_the_run_at_once(
    run_options: Options, tmp_path: Path, module: str, cached: bool
) -> None:
    cache = {"teacher_cache": str(tmp_path / "kept") if cached else None}
    model = LSFDModel(options_from_dict(run_options(path=cache)), Processes())
    teacher = model.teachers[0].network
    teacher.get_submodule(module).register_forward_hook(lambda *given: given[2] * NAN)
    model.feed_data(batch())
    said = message(model.optimize_parameters, 1)
    feature = "the output" if module == "conv_last" else "the feature at 'body.3'"
    assert said.startswith(f"iteration 1: {feature} of the teacher ")
    assert "teacher.pth holds NaN or infinity for a finite input" in said
    assert "path.pretrain_network_t" in said


def test_a_look_at_bad_images_leaves_no_trace(
    run_options: Options, caplog: pytest.LogCaptureFixture, fault: Callable[[str], None]
) -> None:
    """In a stage that minimises nothing there is no loss to tell."""
    model = made(run_options(**sections_of("FReTAL", 5)))
    before = state_of(model)
    for step in (3, 7):  # in either stage
        images = batch(seed=step)
        images["gt"][0] = NAN
        model.feed_data(images)
        model.optimize_parameters(step)
    assert_same(state_of(model), before)
    assert model.skipped.total == 2 and caplog.text.count("the batch's gt held NaN") == 2


def test_the_end_names_the_last_fault(run_options: Options, fault: Callable[[str], None]) -> None:
    model = made(run_options(distillers=[{"type": "Faulty"}], train={"max_skipped": 2}))
    fault("loss")
    model.optimize_parameters(3)
    said = message(model.optimize_parameters, 4)
    assert "iteration 4: the loss or its gradient was not finite for 2 steps in a row" in said
    assert "l_faulty_term is nan" in said and "path.resume_state" in said


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch, run_options: Options) -> LSFDModel:
    """A model that trains in fp16, with the scaler of a GPU, here on the CPU."""
    monkeypatch.setattr(training_model, "autocast_dtype", lambda *_: torch.float16)
    model = made(run_options(distillers=[{"type": "Output"}], train={"total_iter": 60}))
    assert model.scaler.is_enabled()
    return model


def test_an_overflow_of_fp16_lowers_the_scale_and_nothing_else(half: LSFDModel) -> None:
    before, scale = state_of(half), half.scaler.get_scale()
    hook = half.net_g.conv_last.weight.register_hook(lambda gradient: gradient * math.inf)
    half.optimize_parameters(3)
    after = state_of(half)
    assert after.pop("scaler")["scale"] == scale / 2 and before.pop("scaler")
    assert_same(after, before)
    assert half.skipped.total == 0, "this is how fp16 finds its scale"
    hook.remove()
    half.optimize_parameters(4)
    assert half.loss_means.state()[1]["l_pix"] == before["log"][1]["l_pix"] + 1


def test_an_overflow_at_any_scale_is_no_matter_of_the_scale(half: LSFDModel) -> None:
    half.net_g.conv_last.weight.register_hook(lambda gradient: gradient * NAN)

    def on() -> None:
        for step in range(3, 60):
            half.optimize_parameters(step)

    said = message(on)
    assert "the gradient of the student (conv_last.weight)" in said and "fp16's scale is " in said


def test_a_bad_loss_leaves_the_scale_of_fp16_alone(half: LSFDModel) -> None:
    before = state_of(half)
    images = batch(seed=3)
    images["gt"][0] = NAN
    half.feed_data(images)
    half.optimize_parameters(3)
    assert_same(state_of(half), before)


# Methods on features without any variance.


def learner(method: type[Distiller]) -> nn.Module:
    return edsr(kind=OTHER_STUDENTS.get(method.__name__, "EDSR"))


def choices(method: type[Distiller]) -> list[dict[str, Any]]:
    """The method's defaults, and each option that is one of a few words set to each of these."""
    hints = get_type_hints(method.__init__)
    found: list[dict[str, Any]] = [{}]
    for name, parameter in inspect.signature(method).parameters.items():
        values = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        values = (True, False) if hints[name] is bool else values
        found += [{name: value} for value in values if value not in (parameter.default, "vgg")]
    return found


def constant(features: dict[str, Tensor], value: float) -> dict[str, Tensor]:
    """Features with the same value everywhere; a network behind them still gets gradients."""
    return {name: feature * 0 + value for name, feature in features.items()}


def flattened(given: DistillationBatch, value: float) -> DistillationBatch:
    """A batch of constant images and features."""
    return replace(
        given,
        lq=torch.full_like(given.lq, value),
        gt=torch.full_like(given.gt, value),
        student=given.student * 0 + value,
        teachers=[torch.full_like(image, value) for image in given.teachers],
        peers=[image * 0 + value for image in given.peers],
        student_features=constant(dict(given.student_features), value),
        teacher_features=[constant(dict(each), value) for each in given.teacher_features],
        peer_features=[constant(dict(each), value) for each in given.peer_features],
    )


@pytest.mark.parametrize("kind", ["black", "constant", "equal", "large"])
@pytest.mark.parametrize("name", sorted(DISTILLERS))
def test_methods_stay_finite(name: str, kind: str) -> None:
    """Losses and gradients, with every option; in the method's terms, stages and turns."""
    method = DISTILLERS[name]
    for options in choices(method):
        given = agreeing_case(student=learner(method)) if kind == "equal" else case(learner(method))
        try:
            distiller = build(method, given, **options)
        except LsfdError as error:
            assert kind != "equal", f"{options}: {error}"  # There all widths are equal.
            continue
        images = given.batch()
        if kind in ("black", "constant"):
            images = flattened(images, 0.0 if kind == "black" else 0.5)
        elif kind == "large":  # Up to some 10 million; a trained EDSR's are in hundreds.
            student = {key: 10 * value for key, value in images.student_features.items()}
            teachers = [{k: 10 * v for k, v in each.items()} for each in images.teacher_features]
            images = replace(images, student_features=student, teacher_features=teachers)
        networks = [given.student, *given.peers, distiller]
        found = [lambda: distiller(images)]  # noqa: B023
        found += [lambda s=stage: distiller.stage_terms(s, images) for stage in distiller.stages()]  # noqa: B023
        found += [lambda t=turn: distiller.turn_terms(t, images) for turn in distiller.turns()]  # noqa: B023
        for terms_of in found:
            for network in networks:
                network.zero_grad()
            torch.manual_seed(0)
            terms = terms_of()
            for term, value in terms.items():
                assert value.isfinite(), f"{options}: {term} is {value}"
            total(terms).backward(retain_graph=True)
            for network in networks:
                for where, parameter in network.named_parameters():
                    if parameter.grad is not None:
                        assert parameter.grad.isfinite().all(), f"{options}: {where}"
        for where, buffer in distiller.named_buffers():
            assert buffer.isfinite().all(), f"{options}: {where}"


# Scores of perfect, constant and broken images.


def test_constant_images_have_finite_scores() -> None:
    black, grey = (np.full((24, 24, 3), value, np.uint8) for value in (0, 90))
    for channel in ("y", "rgb"):
        assert psnr_and_ssim(black, black, 2, channel) == (math.inf, pytest.approx(1))
        psnr, ssim = psnr_and_ssim(black, grey, 2, channel)
        assert 0 < psnr < 20 and 0 <= ssim < 0.5


def test_records_are_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    scores = {"psnr": math.inf, "ssim": 1.0}
    append_record(path, {"kind": "val", "iteration": 1, "set": "inf", "scores": scores})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    for line in path.read_text().splitlines():
        assert json.loads(line, parse_constant=refuse)["scores"]["psnr"] == "inf"
    (record,) = read_records(path)
    assert record["scores"] == scores and record["set"] == "inf"


def test_a_broken_student_is_passed_over_by_validation(
    run_options: Options,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[str], None],
    no_curves: None,
) -> None:
    """In the middle of the run; it ends as it would have, without that score."""
    options = run_options(val={"val_freq": 4, "save_maps": True})
    run = Run(options_from_dict(options), Processes())
    sets = validation_sets(run.loaded)
    keep = run._validate

    def broken(its: Any) -> None:
        network = run.model.net_g_ema
        whole = {key: value.clone() for key, value in network.state_dict().items()}
        if run.iteration == 8:
            network.conv_last.bias.data.fill_(NAN)
        keep(its)
        network.load_state_dict(whole)

    monkeypatch.setattr(run, "_validate", broken)
    assert run.go(auto_resume=False) == 0
    log = next(run.folder.root.glob("train_*.log")).read_text()
    assert "photographs gets no score: photographs/astronaut: the network's output holds NaN" in log
    records = read_records(run.folder.records)
    assert [r["iteration"] for r in records if r["kind"] == "val"] == [4, 12]
    assert final_scores(records[:-1]) == {}, "an older score is not the run's"

    for parameter in run.model.net_g_ema.parameters():
        parameter.data.fill_(NAN)
    assert validate(run.model.net_g_ema, sets, run.loaded).scores == {}


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_bad_image_is_told_from_a_bad_network(value: float) -> None:
    upscaler = Upscaler(edsr(), SCALE, "cpu")
    images = torch.rand(1, 3, 8, 8)
    assert upscaler.planes(images).isfinite().all()
    images[0, 1, 2, 3] = value
    assert message(upscaler.planes, images).startswith("the image holds NaN or infinity")
    upscaler.network.conv_last.bias.data.fill_(value)
    assert "weights are damaged" in message(upscaler.planes, torch.rand(1, 3, 8, 8))
