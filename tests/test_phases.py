"""Stages before the student's own training, and methods that take part for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import distillation
import pytest
import torch
from helpers import assert_same
from torch import Tensor, nn

from lsfd.config.load import options_from_dict
from lsfd.config.training import Train
from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller, Stage
from lsfd.errors import LsfdError
from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import Processes
from lsfd.training.phases import Phase, phase_at, plan
from lsfd.training.records import read_records
from lsfd.training.run import Run
from lsfd.training.schedule import learning_rate

Options = Callable[..., dict[str, Any]]


class Staged(Distiller):
    """Learns a number from the teacher, then hints to the student, then takes part."""

    default_weights: ClassVar = {"output": 1.0}
    paper: ClassVar = ""
    year: ClassVar = None
    ran_student: ClassVar[list[bool]] = []

    def __init__(self, setting: Any, weights: Any = None, first: int = 3, second: int = 4) -> None:
        super().__init__(setting, weights)
        self.level = nn.Parameter(torch.zeros(()))
        self.first, self.second = first, second

    def stages(self) -> Sequence[Stage]:
        return [Stage("level", self.first, runs_student=False, lr=0.1), Stage("hint", self.second)]

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        self.ran_student.append(batch.student.numel() > 0)
        if stage.name == "level":
            return {"mean": (self.level - batch.teachers[0].mean()).square()}
        tap = self.setting.taps[0][0]
        return {"hint": batch.student_features[tap.student].float().square().mean()}

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        return {"output": (batch.student.mean() - self.level.detach()).square()}


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(DISTILLERS, "Staged", Staged)
    Staged.ran_student.clear()
    yield


def start(options: dict[str, Any]) -> Run:
    return Run(options_from_dict(options), Processes())


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.net_g.state_dict().items()}


def steps(run: Run, first: int, last: int) -> None:
    for step in range(first, last + 1):
        generator = torch.Generator().manual_seed(step)
        lq = torch.rand(2, 3, 12, 12, generator=generator)
        run.model.feed_data({"lq": lq, "gt": torch.rand(2, 3, 24, 24, generator=generator)})
        run.model.optimize_parameters(step)


def test_what_each_stage_trains(run_options: Options, staged: None) -> None:
    run = start(run_options(distillers=[{"type": "Staged"}]))
    model = run.model
    level = model.step.distillers["staged"].level
    fresh = weights(run)
    steps(run, 1, 3)
    assert_same(weights(run), fresh)
    learned = level.item()
    assert learned > 0.1
    assert model.get_current_log().keys() == {"l_staged_level_mean"}
    steps(run, 4, 7)
    hinted = weights(run)
    assert level.item() == learned
    assert model.get_current_log().keys() == {"l_staged_hint_hint"}
    changed = {name for name, value in hinted.items() if not torch.equal(value, fresh[name])}
    assert changed and all(name.startswith(("conv_first", "body")) for name in changed)
    steps(run, 8, 8)
    assert model.get_current_log().keys() == {"l_pix", "l_staged_output"}
    assert Staged.ran_student == [False] * 3 + [True] * 4
    # The average begins anew with the student's own training.
    assert_same(weights(run), dict(model.net_g_ema.state_dict()))
    after = weights(run)
    assert not torch.equal(after["conv_last.weight"], hinted["conv_last.weight"])


@pytest.mark.parametrize("at", [2, 3, 5, 7, 10])
def test_resume_is_exact_in_every_phase(run_options: Options, staged: None, at: int) -> None:
    distillers = [{"type": "Staged"}]
    logger = {"save_checkpoint_freq": at, "keep_checkpoints": 9, "print_freq": 5}
    whole = start(run_options(name="whole", distillers=distillers, logger=logger))
    whole.go(auto_resume=False)
    options = run_options(name="parts", distillers=distillers, logger=logger)
    parts = start(options)
    parts.go(auto_resume=False)
    for path in checkpoints(parts.folder.states):
        if path.name != f"{at}.state":
            path.unlink()
    resumed = start(options)
    resumed.go(auto_resume=True)
    assert_same(
        load_checkpoint(resumed.folder.states / "12.state"),
        load_checkpoint(whole.folder.states / "12.state"),
    )


def test_stages_come_one_after_the_other() -> None:
    taps = distillation.setting()
    one, two = Staged(taps, first=3, second=0), Staged(taps, first=2, second=5)
    phases = plan({"one": one, "two": two}, 20)
    assert [(p.first, p.last, p.method) for p in phases] == [
        (1, 3, "one"),
        (4, 5, "two"),
        (6, 10, "two"),
        (11, 20, ""),
    ]
    assert [phase_at(phases, i).method for i in (1, 3, 4, 10, 11, 20)] == [
        "one", "one", "two", "two", "", "",
    ]  # fmt: skip


def test_stages_must_leave_something(run_options: Options, staged: None) -> None:
    options = run_options(distillers=[{"type": "Staged", "first": 8}])
    with pytest.raises(LsfdError, match=r"train\.total_iter: 12 .* \(level 8, hint 4\)"):
        start(options)


def test_the_schedule_begins_with_the_students_training() -> None:
    train = Train.model_validate(
        {
            "total_iter": 30,
            "warmup_iter": 4,
            "optim_g": {"type": "Adam", "lr": 1.0},
            "scheduler": {"type": "MultiStepLR", "milestones": [10], "gamma": 0.1},
        }
    )
    stage = Phase(1, 10, "m", Stage("s", 10, lr=0.5))
    assert learning_rate(train, stage, 1) == 0.5
    assert 0 < learning_rate(train, stage, 10) < 0.05
    assert learning_rate(train, Phase(1, 10, "m", Stage("s", 10)), 1) == 1.0
    task = Phase(11, 30)
    rates = [learning_rate(train, task, i) for i in (11, 14, 20, 21, 30)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.1, 0.1])


def test_a_method_takes_part_from_start_to_end(run_options: Options) -> None:
    entry = {"type": "Output", "start": 5, "end": 8, "weight": 0.5}
    run = start(run_options(distillers=[entry], logger={"print_freq": 4}))
    run.go(auto_resume=False)
    losses = [r["losses"].keys() for r in read_records(run.folder.records) if r["kind"] == "train"]
    assert losses == [{"l_pix"}, {"l_pix", "l_output_output"}, {"l_pix"}]


def test_weight_multiplies_all_terms(run_options: Options) -> None:
    logs = []
    for weight in (1.0, 0.25):
        run = start(run_options(distillers=[{"type": "LSFD", "weight": weight}]))
        steps(run, 1, 1)
        logs.append(run.model.get_current_log())
    assert logs[1]["l_pix"] == logs[0]["l_pix"]
    for term in ("l_lsfd_feature", "l_lsfd_output"):
        assert logs[1][term] == pytest.approx(0.25 * logs[0][term])


def test_teachers_rest_while_nobody_learns_from_them(run_options: Options) -> None:
    run = start(run_options(distillers=[{"type": "LSFD", "start": 3}]))
    calls: list[int] = []
    run.model.teachers[0].register_forward_hook(lambda *_: calls.append(1))
    steps(run, 1, 2)
    assert not calls
    steps(run, 3, 3)
    assert calls


def test_no_loss_is_named(run_options: Options) -> None:
    entry = {"type": "Output", "start": 2}
    run = start(run_options(distillers=[entry], train={"pixel_opt": None}))
    with pytest.raises(LsfdError, match="iteration 1: there is no loss to minimise"):
        steps(run, 1, 1)


def test_end_before_start_is_named(run_options: Options) -> None:
    entry = {"type": "Output", "start": 5, "end": 2}
    with pytest.raises(LsfdError, match=r"distillers\.0\.end: 2 lies before start 5"):
        start(run_options(distillers=[entry]))
