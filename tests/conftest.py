"""What several tests share: small photographs, a small teacher, a small run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from option_texts import TEXT
from skimage import data

from lsfd.config import LoadedOptions, load_options
from lsfd.distillers.perception import Vgg19
from lsfd.imaging.files import write_image
from lsfd.networks.build import build_network

torch.set_num_threads(1)

STUDENT = {
    "type": "EDSR",
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 8,
    "num_block": 3,
    "upscale": 2,
}
TEACHER = {**STUDENT, "num_feat": 12, "num_block": 6}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two small real photographs, 128 x 160."""
    folder = tmp_path_factory.mktemp("photographs")
    write_image(folder / "astronaut.png", data.astronaut()[:128, 160:320])
    write_image(folder / "chelsea.png", data.chelsea()[60:188, 100:260])
    return folder


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small x2 EDSR with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save({"params": build_network(TEACHER).state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file like torchvision's, with random weights."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Vgg19().state_dict().items()}
    for name, shape in shapes.items():
        scale = (2 / shape[1:].numel()) ** 0.5 if name.endswith("weight") else 0.1
        weights[name] = scale * torch.randn(shape, generator=generator)
    path = tmp_path_factory.mktemp("vgg") / "weights.pth"
    torch.save({**weights, "classifier.0.weight": torch.zeros(3)}, path)
    return str(path)


@pytest.fixture
def run_options(
    photographs: Path, teacher_file: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """A function that gives the options of a run of seconds; keyword arguments replace sections."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def options(**sections: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "name": "tiny",
            "model_type": "LSFDModel",
            "scale": 2,
            "num_gpu": 0,
            "manual_seed": 3,
            "datasets": {
                "train": {
                    "name": "photographs",
                    "dataroot_gt": str(photographs),
                    "cache_dir": str(cache),
                    "gt_size": 24,
                    "num_worker_per_gpu": 0,
                    "batch_size_per_gpu": 2,
                },
                "val": {"name": "photographs", "dataroot_gt": str(photographs)},
            },
            "network_g": STUDENT,
            "network_t": TEACHER,
            "distillers": [{"type": "LSFD"}],
            "path": {
                "experiments_root": str(tmp_path / "experiments"),
                "pretrain_network_t": str(teacher_file),
            },
            "train": {
                "total_iter": 12,
                "optim_g": {"type": "Adam", "lr": 1e-3},
                "precision": "fp32",
                "ema_decay": 0.9,
            },
            "val": {"val_freq": 6},
            "logger": {"print_freq": 4, "save_checkpoint_freq": 5, "use_tb_logger": False},
        }
        for name, value in sections.items():
            if isinstance(value, dict) and name in ("train", "val", "logger", "path"):
                base[name] = {**base[name], **value}
            elif value is None:
                base.pop(name)
            else:
                base[name] = value
        return copy.deepcopy(base)

    return options


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else in a small run."""
    monkeypatch.setattr("lsfd.training.reporter.save_run_curves", lambda *_: None)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LoadedOptions]:
    """Write a text as an option file and load it."""

    def load_text(text: str = TEXT) -> LoadedOptions:
        file = tmp_path / "run.yml"
        file.write_text(text, encoding="utf-8")
        return load_options(file)

    return load_text
