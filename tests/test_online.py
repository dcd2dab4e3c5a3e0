"""Runs without a teacher: peers, discriminators and branches, from options to finished student."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STUDENT
from helpers import assert_same
from safetensors.torch import load_file
from torch import nn

from lsfd.config.load import options_from_dict
from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.networks.student_file import read_student
from lsfd.training.checkpoint import checkpoints, load_checkpoint
from lsfd.training.distributed import Processes
from lsfd.training.records import read_records
from lsfd.training.run import Run

PEERS = [
    {**STUDENT, "num_feat": 10, "num_block": 4},
    {**STUDENT, "type": "RCAN", "num_feat": 6, "num_group": 2, "num_block": 1, "squeeze_factor": 2},
]
LINES: dict[str, dict[str, Any]] = {
    "one": {"distillers": [{"type": "ONE", "rampup_iter": 4}]},
    "afd": {"distillers": [{"type": "AFD"}], "network_p": PEERS[0]},
    "afd3": {"distillers": [{"type": "AFD"}], "network_p": PEERS},
}

Online = Callable[..., dict[str, Any]]


@pytest.fixture
def online(run_options: Callable[..., dict[str, Any]]) -> Online:
    """A function that gives the options of a run without a teacher."""

    def options(line: str, name: str = "tiny", **sections: Any) -> dict[str, Any]:
        given = run_options(network_t=None, name=name, **LINES[line], **sections)
        del given["path"]["pretrain_network_t"]
        return given

    return options


def start(options: dict[str, Any]) -> Run:
    return Run(options_from_dict(options), Processes())


def finished(options: dict[str, Any], *, auto_resume: bool = False) -> Run:
    run = start(options)
    assert run.go(auto_resume=auto_resume) == 0
    return run


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("line", sorted(LINES))
def test_the_student_is_a_plain_network_and_peers_are_saved(online: Online, line: str) -> None:
    run = finished(online(line))
    student, card = read_student(run.folder.student)
    plain = build_network(STUDENT)
    assert load_file(run.folder.student).keys() == plain.state_dict().keys()
    assert count(student) == count(plain)
    assert card.teacher is None and card.method == line.strip("3").upper()
    image = torch.rand(1, 3, 9, 11)
    peers = LINES[line].get("network_p", [])
    peers = peers if isinstance(peers, list) else [peers]
    names = [path.name for path in sorted(run.folder.root.glob("*_peer*.safetensors"))]
    assert names == [f"tiny_peer{number}.safetensors" for number in range(1, len(peers) + 1)]
    for number, (options, average) in enumerate(
        zip(peers, run.model.peers_ema, strict=True), start=1
    ):
        peer, card = read_student(run.folder.peer(number))
        assert card.architecture == options and count(peer) == count(build_network(options))
        with torch.no_grad():  # The memory layout differs, and with it the order of the sums.
            torch.testing.assert_close(peer(image), average(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("one", {"l_one_branch", "l_one_ensemble", "l_one_distillation"}),
        (
            "afd",
            {"l_pix_peer1", "l_afd_output", "l_afd_discriminator", "l_afd_discriminator_peer1"}
            | {"l_afd_adversarial", "l_afd_adversarial_peer1"},
        ),
    ],
)
def test_every_loss_has_a_name_in_the_records(online: Online, line: str, extra: set[str]) -> None:
    run = finished(online(line))
    losses = [r["losses"] for r in read_records(run.folder.records) if r["kind"] == "train"]
    assert losses and all(each.keys() == {"l_pix"} | extra for each in losses)
    assert losses[-1]["l_pix"] < losses[0]["l_pix"]


@pytest.mark.parametrize("line", ["one", "afd3"])
def test_resume_is_exact(online: Online, line: str) -> None:
    """Peers, their averages, the turns' optimisers, branches and the gate's statistics included."""
    logger = {"keep_checkpoints": 9}
    whole = finished(online(line, "whole", logger=logger))
    state = load_checkpoint(whole.folder.states / "12.state")["model"]
    assert len(state["peers"]) == len(state["averages"]) - 1 == (2 if line == "afd3" else 0)
    assert len(state["optimizers"]) == (3 if line == "afd3" else 1)
    assert all(optimizer["state"] for optimizer in state["optimizers"])

    options = online(line, "parts", logger=logger)
    parts = finished(options)
    for path in checkpoints(parts.folder.states):
        if path.name != "5.state":
            path.unlink()
    for path in parts.folder.root.glob("*.safetensors"):
        path.unlink()
    resumed = finished(options, auto_resume=True)
    assert_same(load_checkpoint(resumed.folder.states / "12.state")["model"], state)
    for number in range(1, 1 + len(state["peers"])):
        name = whole.folder.peer(number)
        assert resumed.folder.peer(number).read_bytes() == name.read_bytes()
    assert resumed.folder.student.read_bytes() == whole.folder.student.read_bytes()


def test_each_step_trains_what_it_should(online: Online) -> None:
    """The discriminators' optimiser moves them alone; the other two move the networks."""
    model = start(online("afd3")).model
    (judging, judges), (fooling, fooled) = model.turns
    assert (judging.turn.name, fooling.turn.name) == ("discriminator", "adversarial")

    def ids(modules: Any) -> set[int]:
        return {id(p) for module in modules for p in module.parameters()}

    def of(optimizer: torch.optim.Optimizer) -> set[int]:
        return {id(p) for group in optimizer.param_groups for p in group["params"]}

    afd: Any = model.step.distillers["afd"]
    assert of(judges) == ids([afd.discriminators])
    assert of(fooled) == ids([model.net_g, *model.peers, afd.transfers])
    model.feed_data({"lq": torch.rand(2, 3, 12, 12), "gt": torch.rand(2, 3, 24, 24)})
    model.optimize_parameters(1)
    # The common step gives what only turns train no gradient, and so does not move it.
    common = {id(p) for p, state in model.optimizer_g.state.items() if state}
    assert common == ids([model.net_g, *model.peers])


def test_two_processes_agree_on_three_networks(online: Online, tmp_path: Path) -> None:
    runs = {"afd3": online("afd3", train={"total_iter": 20})}
    asked, answered = tmp_path / "runs.json", tmp_path / "differences.json"
    asked.write_text(json.dumps(runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = Path(__file__).with_name("train_in_pair.py")
    done = subprocess.run(
        [*command, str(script), str(asked), str(answered)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(answered.read_text()) == {"afd3": 0.0}


@pytest.mark.parametrize(
    ("line", "change", "sentence"),
    [
        ("one", {"network_p": PEERS[0]}, "network_p: no method here learns with peers; remove it"),
        (
            "afd",
            {"network_p": None},
            r"distillers\.0: AFD trains networks together: give network_p, or remove it",
        ),
        (
            "afd",
            {"network_p": {**STUDENT, "upscale": 4}},
            r"network_p\.upscale: 4 differs from scale 2",
        ),
        (
            "afd",
            {"network_p": {**STUDENT, "num_fet": 4}},
            r"network_p\.num_fet: .*num_feat",
        ),
        (
            "one",
            {"distillers": [{"type": "ONE", "stem": "conv_frist"}]},
            r"distillers\.0: stem: EDSR has no module 'conv_frist'",
        ),
    ],
)
def test_mistakes_are_named(
    online: Online, line: str, change: dict[str, Any], sentence: str
) -> None:
    options = online(line) | change
    if change.get("network_p", "") is None:
        del options["network_p"]
    with pytest.raises(LsfdError, match=sentence):
        start(options)
