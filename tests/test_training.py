"""The trainer: what is logged, saved, skipped, resumed, refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import lsfd.compat  # noqa: F401

import pytest
import torch
from basicsr.models import build_model
from distillation import sections_of
from helpers import assert_same, train_here
from safetensors.torch import load_file
from torch import Tensor

from lsfd.config.load import options_from_dict
from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller
from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.networks.student_file import read_student
from lsfd.training import reporter
from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import Processes
from lsfd.training.folder import RunFolder
from lsfd.training.model import LSFDModel, moving_average
from lsfd.training.records import read_records
from lsfd.training.run import Run
from lsfd.training.tally import LossMeans

Options = Callable[..., dict[str, Any]]


def test_a_run_leaves_what_it_promises(run_options: Options) -> None:
    finished = train_here(run_options())
    folder = finished.folder
    assert [path.name for path in checkpoints(folder.states)] == ["12.state", "10.state"]
    assert folder.curves.stat().st_size > 0
    records = read_records(folder.records)
    assert [r["kind"] for r in records].count("val") == 2
    losses = [r["losses"] for r in records if r["kind"] == "train"]
    assert len(losses) == 3
    assert losses[0].keys() == {"l_pix", "l_lsfd_feature", "l_lsfd_output"}
    origin = records[0]
    assert origin["seed"] == 3 and "2 images" in origin["data"] and origin["versions"]["torch"]
    assert not list(folder.root.rglob("*.tmp"))

    student, card = read_student(folder.student)
    assert (card.scale, card.method, card.iterations, card.seed) == (2, "LSFD", 12, 3)
    assert card.scores["photographs"]["psnr"] == records[-1]["scores"]["psnr"]
    lq = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        # The memory layout differs, and with it the order of the sums.
        torch.testing.assert_close(student(lq), finished.model.net_g_ema(lq))


def test_exported_student_is_a_plain_network(run_options: Options) -> None:
    options = run_options()
    finished = train_here(options)
    plain = build_network(options["network_g"])
    saved = load_file(finished.folder.student)
    assert saved.keys() == plain.state_dict().keys()
    assert all(saved[name].shape == value.shape for name, value in plain.state_dict().items())


@pytest.mark.parametrize("method", sorted(DISTILLERS))
def test_weight_zero_is_training_without_a_teacher(run_options: Options, method: str) -> None:
    sections = sections_of(method, 0)
    sections["distillers"][0]["weights"] = dict.fromkeys(DISTILLERS[method].default_weights, 0.0)
    with_teacher = run_options(name="zero", **sections)
    student = {key: value for key, value in sections.items() if key == "network_g"}
    without = run_options(name="plain", distillers=None, network_t=None, **student)
    del without["path"]["pretrain_network_t"]
    first, second = train_here(with_teacher), train_here(without)
    assert_same(first.model.net_g.state_dict(), second.model.net_g.state_dict())


@pytest.mark.parametrize("method", sorted(DISTILLERS))
def test_teacher_is_untouched_and_resume_is_exact(run_options: Options, method: str) -> None:
    sections = sections_of(method, 4)
    whole = Run(options_from_dict(run_options(name="whole", **sections)), Processes())
    before = [{k: v.clone() for k, v in t.state_dict().items()} for t in whole.model.teachers]
    whole.go(auto_resume=False)
    assert_same(before, [dict(t.state_dict()) for t in whole.model.teachers])
    assert all(not p.requires_grad for t in whole.model.teachers for p in t.parameters())

    options = run_options(name="parts", **sections)
    parts = train_here(options)
    for path in checkpoints(parts.folder.states):
        if path.name != "10.state":
            path.unlink()
    parts.folder.student.unlink()
    resumed = train_here(options, auto_resume=True)
    assert resumed.folder.student.read_bytes() == whole.folder.student.read_bytes()
    assert_same(
        load_checkpoint(resumed.folder.states / "12.state"),
        load_checkpoint(whole.folder.states / "12.state"),
    )


def test_same_seed_same_student_other_seed_other(run_options: Options) -> None:
    students = [
        train_here(run_options(name=f"run{i}", manual_seed=seed)).model.net_g.state_dict()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert_same(students[0], students[1])
    assert not torch.equal(students[0]["conv_first.weight"], students[2]["conv_first.weight"])


def test_accumulation_equals_a_larger_batch(run_options: Options) -> None:
    once, twice = run_options(name="once"), run_options(name="twice")
    once["datasets"]["train"]["batch_size_per_gpu"] = 4
    twice["train"]["accumulate"] = 2
    first, second = train_here(once), train_here(twice)
    for name, value in first.model.net_g.state_dict().items():
        torch.testing.assert_close(
            value, second.model.net_g.state_dict()[name], rtol=1e-3, atol=1e-5
        )


def test_a_student_starts_from_what_fits_of_another_scale(
    run_options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train_here(run_options())
    options = run_options(scale=3, distillers=[], network_t=None, name="x3")
    options["network_g"]["upscale"] = 3
    options["datasets"]["train"]["gt_size"] = 24
    options["path"] |= {"pretrain_network_g": str(first.folder.student)}
    del options["path"]["pretrain_network_t"]
    with pytest.raises(LsfdError, match="do not fit EDSR"):
        Run(options_from_dict(options), Processes())
    options["path"]["strict_load_g"] = False
    options["train"]["total_iter"] = 1
    run = Run(options_from_dict(options), Processes())
    assert run.model.begun_anew == ["upsample.0.weight", "upsample.0.bias"]
    capsys.readouterr()
    run.go(auto_resume=False)
    assert "begin anew: upsample.0.weight, upsample.0.bias" in capsys.readouterr().out


def test_earlier_runs_are_kept_aside(run_options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260102_030405")  # all in one second
    first = train_here(run_options())
    bytes_before = first.folder.student.read_bytes()
    for seed in (8, 9):
        train_here(run_options(manual_seed=seed))
    archived = sorted(first.folder.root.parent.glob("tiny_archived_*"))
    assert len(archived) == 2
    assert (archived[0] / "tiny.safetensors").read_bytes() == bytes_before


def test_resume_falls_back_to_a_readable_checkpoint(run_options: Options) -> None:
    first = train_here(run_options())
    final = first.folder.student.read_bytes()
    newest = checkpoints(first.folder.states)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = train_here(run_options(), auto_resume=True)
    assert resumed.folder.student.read_bytes() == final


def test_going_back_drops_what_came_after(run_options: Options) -> None:
    first = train_here(run_options(logger={"keep_checkpoints": 3}))
    final = first.folder.student.read_bytes()
    going_back = run_options(
        logger={"keep_checkpoints": 3},
        path={"resume_state": str(first.folder.states / "5.state")},
        train={"total_iter": 8},
    )
    again = train_here(going_back)
    assert [path.name for path in checkpoints(again.folder.states)] == ["8.state", "5.state"]
    assert again.folder.student.read_bytes() != final


def test_a_checkpoint_of_another_run_leaves_the_run_of_that_name_alone(
    run_options: Options,
) -> None:
    source = train_here(run_options(name="source"))
    old = train_here(run_options(manual_seed=8))
    student = old.folder.student.read_bytes()
    named = {"resume_state": str(checkpoints(source.folder.states)[-1])}
    begun = train_here(run_options(path=named))
    (moved,) = old.folder.root.parent.glob("tiny_archived_*")
    assert (moved / "tiny.safetensors").read_bytes() == student
    assert begun.folder.root == old.folder.root
    lines = begun.folder.records.read_text().splitlines()
    assert sum('"kind": "run"' in line for line in lines) == 1


def test_a_checkpoint_without_loss_scaling_goes_on_with_it(run_options: Options) -> None:
    run = Run(options_from_dict(run_options()), Processes())
    state = run.model.state_dict()
    assert state["scaler"] == {}
    run.model.scaler = torch.amp.GradScaler("cpu")
    run.model.load_state_dict(state, Path("5.state"))
    assert run.model.scaler.get_scale() == 2**16


def test_seconds_a_step_leave_pauses_out(
    run_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second, what comes between a hundred."""
    clock = 0.0
    monkeypatch.setattr(reporter.time, "perf_counter", lambda: clock)
    told = []
    folder = RunFolder(Path(run_options()["path"]["experiments_root"]) / "tiny")
    folder.create(resuming=False)
    with reporter.Reporter(folder, "tiny", 60, 0, False) as report:
        for iteration in range(1, 61):
            clock += 1
            if iteration % 10 == 0:
                report.losses(iteration, {}, 1e-3, 0)
            if iteration % 15 == 0:
                clock += 100
                report.restart_clock(iteration)
    told = [record["seconds_per_iteration"] for record in read_records(folder.records)]
    assert told == [1.0] * 6


def test_a_loss_is_the_mean_of_the_steps_that_had_it() -> None:
    means = LossMeans(torch.device("cpu"), Processes())
    for step in range(10):
        terms = {"pixel": torch.tensor(1.0)}
        means.add(terms if step < 8 else {**terms, "late": torch.tensor(2.0)})
    sums, counts = means.state()
    assert means.take() == {"pixel": 1.0, "late": 2.0}
    means.load_state([sums, counts])
    assert means.take() == {"pixel": 1.0, "late": 2.0}
    means.load_state([{"pixel": torch.tensor(10.0)}, 10])  # As an older version keeps it.
    assert means.take() == {"pixel": 1.0}


def test_a_network_argument_is_named_once(run_options: Options) -> None:
    options = run_options()
    options["network_g"] = {**options["network_g"], "num_fet": 3}
    with pytest.raises(LsfdError, match=r"^<dict>, network_g\.num_fet: .*num_feat"):
        Run(options_from_dict(options), Processes())


def test_resume_with_another_student_is_refused(run_options: Options) -> None:
    newest = checkpoints(train_here(run_options()).folder.states)[0]
    other = run_options(path={"resume_state": str(newest)})
    other["network_g"] = {**other["network_g"], "num_feat": 10}
    with pytest.raises(LsfdError, match="does not fit this option file"):
        train_here(other)


def test_feeds_basicsr_users(run_options: Options) -> None:
    model = build_model({**run_options(), "is_train": True, "dist": False})
    assert isinstance(model, LSFDModel)
    model.feed_data({"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 16, 16)})
    model.optimize_parameters(1)
    assert model.get_current_log().keys() == {"l_pix", "l_lsfd_feature", "l_lsfd_output"}
    model.test()
    assert model.get_current_visuals()["result"].shape == (2, 3, 16, 16)


def test_average_forgets_the_random_start() -> None:
    average = moving_average(0.999)
    (ema,), weights = [torch.ones(1)], torch.zeros(1)
    for done in range(1, 500):
        average([ema], [weights], torch.tensor(done))
    assert ema.item() < 1e-6
    moving_average(0.0)([ema], [torch.full((1,), 5.0)], torch.tensor(1))
    assert ema.item() == 5.0


class Broken(Distiller):
    """Gives NaN in the steps listed in ``bad``."""

    default_weights: ClassVar = {"broken": 1.0}
    uses_features = False
    bad: ClassVar[set[int]] = set()

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        value = batch.student.mean()
        return {"broken": value * float("nan") if batch.step in self.bad else value}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Broken]]:
    monkeypatch.setitem(DISTILLERS, "Broken", Broken)
    yield Broken
    Broken.bad = set()


def test_a_nonfinite_step_is_skipped_and_counted(
    run_options: Options, broken: type[Broken]
) -> None:
    broken.bad = {5, 6, 9}
    finished = train_here(run_options(distillers=[{"type": "Broken"}]))
    assert finished.model.skipped.total == 3
    assert all(torch.isfinite(value).all() for value in finished.model.net_g.parameters())
    text = finished.folder.records.read_text()
    assert "NaN" not in text and json.loads(text.splitlines()[-1])


def test_persistent_nonfinite_losses_stop_the_run(
    run_options: Options, broken: type[Broken]
) -> None:
    broken.bad = set(range(4, 100))
    options = run_options(distillers=[{"type": "Broken"}], train={"max_skipped": 3})
    with pytest.raises(LsfdError, match=r"iteration 6: .*3 steps in a row.*train.optim_g.lr"):
        train_here(options)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scale": 4}, r"network_g.upscale: 2 differs from scale 4"),
        ({"distillers": [{"type": "LSDF"}]}, r"distillers\.0\.type.*did you mean 'LSFD'"),
        ({"distillers": [{"type": "LSFD", "kernal": 1}]}, r"distillers\.0\.kernal.*'kernel'"),
        ({"distillers": [{"type": "LSFD", "taps": ["body.9"]}]}, r"distillers\.0\.taps.*body\.9"),
        ({"distillers": [{"type": "LSFD", "weights": {"feat": 1.0}}]}, r"weights.*feature"),
        ({"network_t": None, "path": {"pretrain_network_t": None}}, "learns from a teacher"),
    ],
)
def test_mistakes_are_named(run_options: Options, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LsfdError, match=sentence):
        Run(options_from_dict(run_options(**change)), Processes())


def test_crop_larger_than_an_image_is_named(run_options: Options) -> None:
    options = run_options()
    options["datasets"]["train"]["gt_size"] = 200
    with pytest.raises(LsfdError, match=r"astronaut.*160x128.*gt_size"):
        Run(options_from_dict(options), Processes())


def test_teacher_of_another_scale_is_named(run_options: Options, tmp_path: Path) -> None:
    options = run_options()
    other = {key: value for key, value in options["network_t"].items() if key != "upscale"}
    path = tmp_path / "x3.pth"
    torch.save({"params": build_network({**other, "upscale": 3}).state_dict()}, path)
    options["network_t"] = {"type": "auto"}
    options["path"]["pretrain_network_t"] = str(path)
    with pytest.raises(LsfdError, match=r"teacher upscales x3, but scale is 2"):
        Run(options_from_dict(options), Processes())


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_every_learning_rate_is_scaled_as_said(
    run_options: Options, scaling: str, factor: float
) -> None:
    train = {"accumulate": 2, "lr_scaling": scaling}
    options = run_options(train=train, **sections_of("AFD", 2))
    model = LSFDModel(options_from_dict(options), Processes(world_size=2))
    own = [turn.turn.lr for turn, _ in model.turns]
    assert own, "AFD's discriminators have a rate of their own"
    model.feed_data({"lq": torch.rand(4, 3, 12, 12), "gt": torch.rand(4, 3, 24, 24)})
    model.optimize_parameters(1)
    rates = [group["lr"] for optimizer in model.optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([factor * rate for rate in (1e-3, *own)])


def test_a_run_says_its_global_batch_and_learning_rate(
    run_options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"accumulate": 4, "lr_scaling": "sqrt", "total_iter": 2}
    records = read_records(train_here(run_options(train=train)).folder.records)
    assert (records[0]["batch"], records[0]["learning_rate"]) == (8, 2e-3)
    assert [record["lr"] for record in records if record["kind"] == "train"] == [2e-3]
    first = capsys.readouterr().out.splitlines()[0]
    assert "batch 8 (2 a process x 4 accumulated)" in first
    assert "learning rate 0.002 (0.001, scaling sqrt)" in first
