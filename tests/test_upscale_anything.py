"""``lsfd upscale`` on a folder of everything, and the memory that it takes."""

from __future__ import annotations

import resource
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUDENT
from helpers import SERVER, exit_status
from PIL import Image
from torch import Tensor, nn

from lsfd.cli import main
from lsfd.imaging import raster
from lsfd.imaging.files import read_image
from lsfd.imaging.target_size import TargetSize
from lsfd.inference.folder import upscale_path
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student

SCRIPT = Path(__file__).parent.parent / "scripts" / "upscale_anything.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


class Nearest(nn.Module):
    """Enlarges x2 by repeating pixels."""

    def forward(self, lq: Tensor) -> Tensor:
        return nn.functional.interpolate(lq, scale_factor=2.0)


@pytest.fixture
def folder(script: dict[str, Any], photographs: Path, tmp_path: Path) -> tuple[Path, Any]:
    """One file of every kind, and what cannot be upscaled."""
    crops = [read_image(path)[:24, :32] for path in sorted(photographs.iterdir())]
    count = len(script["KINDS"]) + len(script["BAD"]) + 2
    return tmp_path / "in", script["make_folder"](tmp_path / "in", crops, count, 300)


def test_a_folder_of_everything(
    script: dict[str, Any],
    folder: tuple[Path, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "student.safetensors"
    save_student(weights, build_network(STUDENT), StudentCard(architecture=STUDENT, scale=2))
    (source, files), out = folder, tmp_path / "out"
    arguments = ["-i", str(source), "-o", str(out), "-w", str(weights), "--tile", "20"]
    arguments += ["--device", "cpu", "--precision", "fp32"]
    assert main(["upscale", *arguments]) == 1

    printed = capsys.readouterr().out
    assert f"{len(files) + 1} upscaled, 1 skipped, {len(script['BAD'])} failed" in printed
    assert f"{source / 'notes.txt'}: skipped" in printed
    for name in script["BAD"]:
        assert f"{source / name}: failed" in printed
        assert not (out / name).exists()
    assert sum(path.is_file() for path in out.rglob("*")) == len(files) + 1
    upscaler = Upscaler(script["load_any"](weights)[0], 2, "cpu")
    for path, kind in files.items():
        target = out / path.relative_to(source)
        target = target.with_suffix(".png") if kind.ending == "gif" else target
        assert script["compare"](path, target, kind, upscaler) is None, path.name

    assert main(["upscale", *arguments, "--resume"]) == 1
    assert f"0 upscaled, {len(files) + 1} kept from an earlier run" in capsys.readouterr().out


def test_results_are_shrunk_to_a_size(folder: tuple[Path, Any], tmp_path: Path) -> None:
    source, files = folder
    upscale_path(
        source, tmp_path / "out", Upscaler(Nearest(), 2, "cpu"), extension="png",
        size=TargetSize(box=(40, 40)), suffix=" small",
    )  # fmt: skip
    sizes = set()
    for path in files:
        out = tmp_path / "out" / path.relative_to(source)
        sizes.add(Image.open(out.with_name(f"{out.stem} small.png")).size)
    assert sizes == {(40, 30), (30, 40), (40, 3)}


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """Of the pixels of a large image, 16 MiB, and its result, 66 MiB, few are in memory."""
    noise = np.random.default_rng(0).integers(0, 2, (100, 2400, 3), np.uint8)
    Image.fromarray(np.tile(noise, (24, 1, 1))).save(tmp_path / "large.png")
    Image.fromarray(np.tile(noise[:, :600], (6, 1, 1))).save(tmp_path / "small.png")
    process = SERVER.Process(target=_upscale_within, args=(tmp_path, 60 << 20))
    process.start()
    assert exit_status(process) == 0
    assert Image.open(tmp_path / "out" / "large.bmp").size == (4800, 4800)
    assert not list((tmp_path / "out").glob(".*"))


def _upscale_within(folder: Path, limit: int) -> None:
    raster.IN_MEMORY = 1 << 20
    upscaler = Upscaler(Nearest(), 2, "cpu", tile=128)
    peaks = []
    for name in ("small.png", "large.png"):
        upscale_path(folder / name, folder / "out", upscaler, extension="bmp")
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    assert peaks[1] - peaks[0] < limit, [peak >> 20 for peak in peaks]
