"""Properties of FitNet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import Case, agreeing, build, case, random_batch, setting
from helpers import assert_same
from official_fakd import official, official_batch
from torch import Tensor

from lsfd.config.load import options_from_dict
from lsfd.distillers import DISTILLERS, Setting
from lsfd.errors import LsfdError
from lsfd.networks.taps import TappedNetwork, resolve_taps
from lsfd.training.distributed import Processes
from lsfd.training.run import Run


def test_fitnet_distance_values() -> None:
    given = setting()
    batch = agreeing(random_batch(given))
    shifted = replace(batch, student_features={k: v + 2 for k, v in batch.student_features.items()})
    for kernel in (0, 1):
        for distance, expected in (("l2", 3 * 0.5 * 4), ("l1", 3 * 2)):
            method = DISTILLERS["FitNet"](given, kernel=kernel, distance=distance)
            value = method(shifted)["feature"]
            torch.testing.assert_close(value, torch.tensor(float(expected)))


def test_without_regressor_it_equals_fakds_official_code() -> None:
    distiller = DISTILLERS["FitNet"](setting(), kernel=0, distance="l1")
    assert not list(distiller.parameters())
    value = distiller(official_batch(6, 6))["feature"]
    torch.testing.assert_close(value, official("fitnet_l1"))


def test_no_regressor_needs_equal_widths() -> None:
    with pytest.raises(LsfdError, match=r"^kernel: 0 .*4 channels .* 6 of the teacher"):
        DISTILLERS["FitNet"](setting(4, 6), kernel=0)


def test_hint_iter_must_not_be_negative() -> None:
    with pytest.raises(LsfdError, match=r"^hint_iter: .*-1"):
        DISTILLERS["FitNet"](setting(), hint_iter=-1)


def test_joint_training_has_no_stage_of_its_own() -> None:
    assert [stage.iterations for stage in DISTILLERS["FitNet"](setting()).stages()] == [0]


def one_tap(student_tap: str, teacher_tap: str) -> Case:
    networks = case()
    student, teacher = networks.student.network, networks.teachers[0].network
    taps = resolve_taps(student, teacher, [{"student": student_tap, "teacher": teacher_tap}])
    return Case(
        TappedNetwork(student, [student_tap]),
        [TappedNetwork(teacher, [teacher_tap])],
        Setting(networks.setting.scale, (tuple(taps),)),
    )


def test_a_hint_in_the_middle_teaches_what_lies_before_it() -> None:
    given = one_tap("body.1", "body.3")
    distiller = build(DISTILLERS["FitNet"], given, hint_iter=20)
    (stage,) = distiller.stages()
    assert (stage.name, stage.iterations, stage.runs_student) == ("hint", 20, True)
    network = given.student.network
    before = copy.deepcopy(network.state_dict())
    # Weight decay would move whatever has a gradient, were it zero.
    learning = [*network.parameters(), *distiller.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.1)
    values = []
    for _ in range(20):
        optimizer.zero_grad(set_to_none=True)
        term = distiller.stage_terms(stage, given.batch())["feature"]
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < 0.7 * values[0]
    for name, value in network.state_dict().items():
        taught = name.startswith(("conv_first", "body.0", "body.1"))
        assert torch.equal(value, before[name]) != taught, name


def test_hint_first_then_the_task_with_the_output(
    run_options: Callable[..., dict[str, Any]],
) -> None:
    """Two stages as in the paper, through the trainer."""
    methods = [
        {
            "type": "FitNet",
            "taps": [{"student": "body.1", "teacher": "body.3"}],
            "hint_iter": 3,
            "weights": {"feature": 0.0},
        },
        {"type": "Output"},
    ]
    model = Run(options_from_dict(run_options(distillers=methods)), Processes()).model
    fresh = weights(model.net_g)
    steps(model, range(1, 4))
    assert model.get_current_log().keys() == {"l_fitnet_hint_feature"}
    hinted = weights(model.net_g)
    changed = {name for name, value in hinted.items() if not torch.equal(value, fresh[name])}
    assert {name.rsplit(".", 1)[0] for name in changed} == {
        "conv_first", "body.0.conv1", "body.0.conv2", "body.1.conv1", "body.1.conv2",
    }  # fmt: skip
    regressor = weights(model.step.distillers["fitnet"])
    steps(model, range(4, 6))
    assert model.get_current_log().keys() == {"l_pix", "l_output_output"}
    assert not torch.equal(weights(model.net_g)["conv_last.weight"], hinted["conv_last.weight"])
    assert_same(weights(model.step.distillers["fitnet"]), regressor)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def steps(model: Any, iterations: range) -> None:
    generator = torch.Generator().manual_seed(iterations.start)
    for iteration in iterations:
        lq = torch.rand(2, 3, 12, 12, generator=generator)
        model.feed_data({"lq": lq, "gt": torch.rand(2, 3, 24, 24, generator=generator)})
        model.optimize_parameters(iteration)
