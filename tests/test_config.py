"""Option files: what they become once read."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from option_texts import TEXT, message, without_folder

from lsfd.config import options_from_dict
from lsfd.config.reader import Document


def test_typed_options_hold_values_and_defaults(load: Any) -> None:
    options = load().options
    assert options.train.total_iter == 5000
    assert type(options.train.total_iter) is int
    assert options.train.optim_g.lr == 2e-4
    assert options.train.optim_g.betas == (0.9, 0.99)
    assert options.train.pixel_opt.type == "L1Loss"
    assert options.train.max_skipped == 20
    assert options.num_gpu == "auto"
    assert options.datasets.train.dataroot_gt == ["hr"]
    assert options.datasets.train.dataroot_lq == []
    assert list(options.datasets.validation) == ["val", "val_2"]
    assert options.datasets.validation["val_2"].dataroot_gt == ["a", "b"]
    assert options.network_g.arguments == {"num_feat": 32, "upscale": 4}
    assert [teacher.type for teacher in options.network_t] == ["EDSR", "auto"]
    assert options.distillers[0].taps == "auto"
    assert options.distillers[0].arguments == {"kernel": 1, "weights": {"feature": 0.001}}
    assert options.path.pretrain_network_t == ["first.pth", "second.pth"]
    assert list(options.val.metrics) == ["psnr"]


def test_single_teacher_is_a_list_of_one(load: Any) -> None:
    text = TEXT.replace(
        "  - {type: EDSR, num_feat: 64, upscale: 4}\n  - type: auto", "  type: auto"
    )
    loaded = load(text.replace("[first.pth, second.pth]", "first.pth"))
    assert [teacher.type for teacher in loaded.options.network_t] == ["auto"]
    assert loaded.options.path.pretrain_network_t == ["first.pth"]
    assert loaded.raw["network_t"] == {"type": "auto"}  # BasicSR's shape stays.


def test_options_cannot_be_changed_afterwards(load: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().options.train.total_iter = 1


def test_to_yaml_loads_to_the_same_options(load: Any) -> None:
    loaded = load()
    again = load(loaded.to_yaml())
    assert again.raw == loaded.raw
    assert again.options == loaded.options


def test_error_of_a_higher_floor_names_file_line_and_key(load: Any) -> None:
    loaded = load()
    said = without_folder(str(loaded.error("network_t.1.num_feat", "unknown")))
    assert said == "run.yml, line 14, network_t.1.num_feat: unknown"
    said = without_folder(str(loaded.error("distillers.0.weights.feature", "too large")))
    assert said == "run.yml, line 19, distillers.0.weights.feature: too large"
    assert without_folder(str(loaded.error("logger", "full"))) == "run.yml, logger: full"


def test_index_of_a_single_teacher_is_left_out_of_its_key() -> None:
    data = Document(TEXT, "text").data
    data["network_t"] = {"type": "EDSR", "upscale": 2}
    data["path"]["pretrain_network_t"] = "a.pth"
    said = message(options_from_dict, data, "program")
    assert said.startswith("program, network_t.upscale: 2 differs")


def test_basicsr_says_in_two_lines_that_wandb_is_off(load: Any) -> None:
    off = "logger: {wandb: {project: ~, resume_id: ~}}\n"
    assert load(TEXT + off).options.logger.wandb is None


def test_options_from_dict_leaves_the_dict_alone() -> None:
    data = Document(TEXT, "text").data
    before = copy.deepcopy(data)
    loaded = options_from_dict(data)
    assert data == before
    assert loaded.raw == before
    assert loaded.source == "<dict>"


def test_options_from_dict_takes_what_basicsr_adds() -> None:
    data = Document(TEXT, "text").data
    expected = copy.deepcopy(data)
    data |= {"dist": False, "rank": 0, "world_size": 1, "auto_resume": False, "is_train": True}
    for name, section in data["datasets"].items():
        section |= {"phase": name.split("_")[0], "scale": 4}
    root = "/code/experiments/run"
    data["path"] |= {
        "experiments_root": root,
        "models": f"{root}/models",
        "training_states": f"{root}/training_states",
        "log": root,
        "visualization": f"{root}/visualization",
    }
    expected["path"]["experiments_root"] = "/code/experiments"
    assert options_from_dict(data).raw == expected


def test_options_from_dict_takes_tuples_and_refuses_objects() -> None:
    data = Document(TEXT, "text").data
    data["train"]["optim_g"]["betas"] = (0.5, 0.6)
    assert options_from_dict(data).options.train.optim_g.betas == (0.5, 0.6)
    data["network_g"]["norm"] = object()
    assert message(options_from_dict, data) == (
        "<dict>, network_g.norm: object is no type that an option file can hold"
    )


def test_import_is_light() -> None:
    code = "import lsfd.config, sys; assert not {'torch', 'basicsr', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
