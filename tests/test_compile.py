"""A run whose networks are compiled learns what an ordinary one learns."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import lasting_records
from torch._inductor import config as inductor_config

from lsfd.config.load import options_from_dict
from lsfd.training.checkpoint import load_checkpoint
from lsfd.training.distributed import Processes
from lsfd.training.folder import RunFolder
from lsfd.training.run import Run

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU"
)


@pytest.fixture(autouse=True)
def one_compiler() -> Iterator[None]:
    with inductor_config.patch(compile_threads=1):
        yield
    torch.compiler.reset()


def test_compiled_and_eager_runs_agree_and_continue_each_other(
    run_options: Callable[..., dict[str, Any]],
) -> None:
    small = run_options()["network_g"] | {"num_feat": 4, "num_block": 2}

    def train(name: str, *, compiled: bool, start: RunFolder | None = None) -> RunFolder:
        options = run_options(
            name=name,
            network_g=small,
            train={"total_iter": 4, "compile": compiled},
            logger={"print_freq": 1, "save_checkpoint_freq": 2},
        )
        if start is not None:
            options["path"]["resume_state"] = str(start.states / "2.state")
        run = Run(options_from_dict(options), Processes())
        assert run.go(auto_resume=False) == 0
        return run.folder

    eager = train("eager", compiled=False)
    compiled = train("compiled", compiled=True)
    then_eager = train("then_eager", compiled=False, start=compiled)
    then_compiled = train("then_compiled", compiled=True, start=eager)
    for folder in (compiled, then_eager, then_compiled):
        assert_close(folder, eager)


def assert_close(folder: RunFolder, reference: RunFolder) -> None:
    """Compare the weights, and the losses of the iterations that a run made itself."""
    state, expected = (load_checkpoint(f.states / "4.state")["model"] for f in (folder, reference))
    for part in ("student", "averages", "distillers"):
        torch.testing.assert_close(state[part], expected[part], rtol=1e-3, atol=1e-5)
    losses, expected_losses = (
        {r["iteration"]: r["losses"] for r in lasting_records(f) if r["kind"] == "train"}
        for f in (folder, reference)
    )
    assert len(losses) in (2, 4)
    for iteration, terms in losses.items():
        assert terms == pytest.approx(expected_losses[iteration], rel=1e-3)
