"""Students in a row, each the next one's teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_options
from safetensors.torch import load_file

from lsfd.atomic import write_text
from lsfd.config.load import load_options
from lsfd.networks.student_file import read_student
from lsfd.training.generations import generations
from lsfd.training.planned import PlannedRun
from lsfd.training.run import train

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def option_file(run_options: Options, tmp_path: Path) -> Path:
    options = run_options(
        distillers=[{"type": "Output"}], train={"generations": 3, "total_iter": 4}
    )
    return write_options(tmp_path / "row.yml", options)


def test_each_student_teaches_the_next(option_file: Path) -> None:
    first, second, third = (loaded.options for loaded in generations(option_file, []))
    assert [o.name for o in (first, second, third)] == [
        "tiny_generation1",
        "tiny_generation2",
        "tiny",
    ]
    assert first.network_t[0].arguments["num_feat"] == 12
    for options, before in ((second, first), (third, second)):
        assert options.network_t == [first.network_g]
        (teacher,) = options.path.pretrain_network_t
        assert Path(teacher).stem == before.name
        assert options.manual_seed == before.manual_seed + 1


def test_a_row_trains_and_goes_on_where_it_was(option_file: Path, tmp_path: Path) -> None:
    assert train(option_file) == 0
    root = tmp_path / "experiments"
    files = [root / name / f"{name}.safetensors" for name in ("tiny_generation1", "tiny")]
    _, card = read_student(files[1])
    assert card.teacher == "tiny_generation2.safetensors"
    one, other = (load_file(file)["conv_first.weight"] for file in files)
    assert not torch.equal(one, other)
    times = [file.stat().st_mtime_ns for file in files]
    content = files[1].read_bytes()
    files[1].unlink()
    assert train(option_file, auto_resume=True) == 0
    assert files[0].stat().st_mtime_ns == times[0]
    assert files[1].read_bytes() == content


def test_all_students_count_for_how_far_a_run_has_come(option_file: Path, tmp_path: Path) -> None:
    run = PlannedRun("Output", 0, load_options(option_file))
    assert (run.iterations_done(), run.iterations) == (0, 12)
    for name, done in (("tiny_generation1", 4), ("tiny_generation2", 3)):
        record = {"kind": "train", "iteration": done, "losses": {}}
        write_text(tmp_path / "experiments" / name / "metrics.jsonl", json.dumps(record) + "\n")
    assert run.iterations_done() == 7
    write_text(run.folder.student, "finished")
    assert run.iterations_done() == 12


def test_one_generation_is_the_file_itself(run_options: Options, tmp_path: Path) -> None:
    file = write_options(tmp_path / "one.yml", run_options())
    (loaded,) = generations(file, ["manual_seed=9"])
    assert (loaded.options.name, loaded.options.manual_seed) == ("tiny", 9)
