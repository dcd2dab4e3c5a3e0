"""What commands are given to disturb, and what they have to give in the end.

Tiny networks and photographs that scikit-image ships: a command takes about a second.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from safetensors import safe_open
from skimage import data
from torch import Tensor

from lsfd.config.load import options_from_dict
from lsfd.config.reader import read_document
from lsfd.data.pack import verify_store
from lsfd.data.store import INDEX_FILE
from lsfd.imaging.files import IMAGE_EXTENSIONS, read_image, write_image
from lsfd.networks.build import build_network
from lsfd.networks.card import StudentCard
from lsfd.networks.student_file import save_student
from lsfd.training.checkpoint import load_checkpoint
from lsfd.training.records import read_records

STUDENT = {
    "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 3, "upscale": 2,
}  # fmt: skip
TEACHER = {**STUDENT, "num_feat": 12, "num_block": 6}

VERBS = ("train", "compare", "prepare", "upscale", "export", "compress")

Result = dict[str, Any]
"""What has to be the same: by file name, or by name and what is in it."""


@dataclass(frozen=True)
class Scene:
    """A command.

    Attributes:
        name: of the verb, with what is special.
        prepare: writes into the command's folder what it needs, and returns its arguments.
        result: reads what it has made.
        exact: names of files that hold either nothing or the undisturbed command's bytes.
    """

    name: str
    prepare: Callable[[Path], list[str]]
    result: Callable[[Path], Result]
    exact: bool = False

    @property
    def verb(self) -> str:
        """The command's first word."""
        return self.name.split()[0]


class Materials:
    """Photographs, a teacher and a student that all scenes share."""

    def __init__(self, root: Path) -> None:
        """Make them below ``root``."""
        self.photographs, self.teacher = root / "photographs", root / "teacher.safetensors"
        self.student = root / "student.safetensors"
        crops = {
            "astronaut": data.astronaut()[:128, 160:320],
            "chelsea": data.chelsea()[60:188, 100:260],
            "coffee": data.coffee()[100:196, 100:228],
            "rocket": data.rocket()[100:196, 200:328],
        }
        for name, pixels in crops.items():
            write_image(self.photographs / f"{name}.png", pixels)
        torch.manual_seed(1)
        for path, options in ((self.teacher, TEACHER), (self.student, STUDENT)):
            save_student(path, build_network(options), StudentCard(architecture=options, scale=2))

    def scenes(self) -> list[Scene]:
        """Return all commands that can be given here."""
        formats = [".pt", ".safetensors"]
        if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
            formats.append(".onnx")
        return [
            Scene("train", lambda folder: self._train(folder, 0), run_results),
            Scene("train with a loader", lambda folder: self._train(folder, 1), run_results),
            Scene("compare", self._compare, compare_results),
            Scene("prepare", lambda folder: self._prepare(folder, 1), _files("out"), exact=True),
            Scene("prepare with 2 workers", lambda folder: self._prepare(folder, 2), _files("out"),
                  exact=True),
            Scene("upscale", self._upscale, _files("out"), exact=True),
            Scene("upscale --resume", lambda folder: [*self._upscale(folder), "--resume"],
                  _files("out"), exact=True),
            *(Scene(f"export {suffix}", self._export(suffix), _files("out"), exact=True)
              for suffix in formats),
            Scene("compress", self._compress, compress_results),
        ]  # fmt: skip

    def options(self, folder: Path, **train: Any) -> dict[str, Any]:
        """Return the options of a run in a folder."""
        photographs = {"name": "photographs", "dataroot_gt": str(self.photographs)}
        return {
            "name": "tiny",
            "model_type": "LSFDModel",
            "scale": 2,
            "num_gpu": 0,
            "manual_seed": 3,
            "datasets": {
                "train": {
                    **photographs,
                    "cache_dir": str(folder / "cache"),
                    "gt_size": 24,
                    "num_worker_per_gpu": 0,
                    "batch_size_per_gpu": 2,
                },
                "val": photographs,
            },
            "network_g": STUDENT,
            "network_t": TEACHER,
            "distillers": [{"type": "LSFD"}],
            "path": {
                "experiments_root": str(folder / "experiments"),
                "pretrain_network_t": str(self.teacher),
            },
            "train": {
                "total_iter": 12,
                "warmup_iter": 4,
                "scheduler": {"type": "CosineAnnealingLR", "eta_min": 1e-6},
                "optim_g": {"type": "Adam", "lr": 1e-3},
                "precision": "fp32",
                "ema_decay": 0.9,
                **train,
            },
            "val": {"val_freq": 5},
            "logger": {
                "print_freq": 2,
                "save_checkpoint_freq": 3,
                "keep_checkpoints": 1,
                "use_tb_logger": True,
            },
        }

    def _train(self, folder: Path, workers: int) -> list[str]:
        options = self.options(folder)
        options["datasets"]["train"]["num_worker_per_gpu"] = workers
        return ["train", "-opt", _written(folder, options), "--auto_resume"]

    def _compare(self, folder: Path) -> list[str]:
        options = self.options(folder, total_iter=6)
        methods = {name: {"distillers": [{"type": name}]} for name in ("Plain", "FAKD")}
        options |= {"compare": {"seeds": [0], "methods": methods}}
        return ["compare", "-opt", _written(folder, options), "--jobs", "2"]

    def _compress(self, folder: Path) -> list[str]:
        section = {
            "group_size": 3, "depths": [0, 1], "widths": [0.5], "tail_widths": [0.5],
            "patches": 4, "held_out": 2, "iterations": 3, "batch_size": 2,
        }  # fmt: skip
        options = self.options(folder, total_iter=4)
        options |= {"compress": section, "distillers": [{"type": "Output"}]}
        return ["compress", "-opt", _written(folder, options), "--budget", "params=14k"]

    def _prepare(self, folder: Path, workers: int) -> list[str]:
        return [
            "prepare", "-i", str(self.photographs), "-o", str(folder / "out"),
            "--scale", "2", "4", "--workers", str(workers),
        ]  # fmt: skip

    def _upscale(self, folder: Path) -> list[str]:
        return [
            "upscale", "-i", str(self.photographs), "-o", str(folder / "out"),
            "-w", str(self.student), "--engine", "torch", "--device", "cpu",
        ]  # fmt: skip

    def _export(self, suffix: str) -> Callable[[Path], list[str]]:
        def arguments(folder: Path) -> list[str]:
            out = folder / "out" / f"student{suffix}"
            return ["export", "-w", str(self.student), "-o", str(out)]

        return arguments


def _written(folder: Path, options: dict[str, Any]) -> str:
    """Write an option file, once: what is resumed must not have changed."""
    file = folder / "options.yml"
    if not file.exists():
        file.write_text(options_from_dict(options).to_yaml())
    return str(file)


def _files(name: str) -> Callable[[Path], Result]:
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


def run_results(folder: Path) -> Result:
    """Return students, checkpoints, records and the packed images of all runs in a folder."""
    found: Result = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "_archived_" in name:  # A run without a checkpoint is put aside, and begun anew.
            continue
        if (
            path.suffix == ".safetensors"
            or (path.suffix == ".bin" and path.parent.parent.name == "cache")
        ) or path.name == INDEX_FILE:
            found[name] = path.read_bytes()
        elif path.suffix == ".state":
            found[name] = _digest(load_checkpoint(path))
        elif path.name == "metrics.jsonl":
            found[name] = _lasting(path)
    return found


def compare_results(folder: Path) -> Result:
    """Return what the runs have made, and the comparison's table and numbers."""
    root = folder / "experiments" / "tiny"
    found = run_results(folder)
    for name in ("compare.md", "compare.json", "compare.png"):
        found[name] = (root / name).read_bytes() if (root / name).exists() else None
    for path in sorted((root / "records").glob("*.jsonl")):
        found[f"records/{path.name}"] = _lasting(path)
    return found


def compress_results(folder: Path) -> Result:
    """Return what the fine-tuning has made, the candidates, and the choice."""
    found = run_results(folder)
    for path in sorted((folder / "experiments").rglob("*.json")):
        found[str(path.relative_to(folder))] = json.loads(path.read_text())
    return found


def _lasting(records: Path) -> list[dict[str, Any]]:
    """Return what was measured, without times and without the record of each start."""
    return [
        {key: value for key, value in record.items() if key != "seconds_per_iteration"}
        for record in read_records(records)
        if record["kind"] != "run"
    ]


def _digest(value: Any) -> Any:
    """Return a checkpoint's values in a form that can be compared, tensors bit for bit."""
    if isinstance(value, dict):
        return {key: _digest(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_digest(item) for item in value]
    if isinstance(value, Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [str(value.dtype), list(value.shape), hashlib.sha256(content).hexdigest()]
    return value


def leftovers(folder: Path) -> list[str]:
    """Return the names of unfinished files, and of all that is among the temporary ones."""
    found = [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".new", ".old"))]
    found += (folder / "tmp").iterdir() if (folder / "tmp").exists() else []
    return [str(path.relative_to(folder)) for path in found]


def damaged(folder: Path, exact: Result | None = None) -> list[str]:
    """Return what stands half written under a final name.

    Args:
        folder: of a command.
        exact: the only content that its files may have, by their names; None: any whole one.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        if name.parts[0] == "tmp":
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
        if (
            exact is not None
            and name.parts[0] == "out"
            and path.read_bytes() != exact.get(str(name))
        ):
            found.append(f"{name}: other content")
    return found


def _read(path: Path) -> None:
    """Read a file as far as it shows whether it is whole; one of no known kind not at all."""
    if path.name in ("curves.png", "compare.png"):  # Texts in their place, see warm.
        if not path.read_bytes():
            raise ValueError("empty")
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    elif path.suffix == ".state":
        load_checkpoint(path)
    elif path.name == INDEX_FILE:
        verify_store(path.parent)
    elif path.suffix in IMAGE_EXTENSIONS:
        read_image(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".yml":
        read_document(path)


def sentence_of(log: str) -> str:
    """Return the sentence with which a command ended.

    Raises:
        ValueError: there is none, or more than one, or a traceback.
    """
    lines = [line for line in log.splitlines() if line.startswith("lsfd: ")]
    if len(lines) != 1 or "Traceback" in log or "Exception ignored" in log:
        raise ValueError(f"no single sentence: ...{log[-1500:]}")
    return lines[0]


def add_verbs(arguments: argparse.ArgumentParser) -> None:
    """Let the user choose verbs."""
    arguments.add_argument("--verbs", nargs="+", default=[], choices=VERBS, help="default: all")


def by_name(scenes: Sequence[Scene], names: Sequence[str]) -> list[Scene]:
    """Return the scenes of some verbs; of all, if none is named."""
    return [scene for scene in scenes if not names or scene.verb in names]
