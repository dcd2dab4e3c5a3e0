"""Validation: wrong images are named before anything is trained; processes share the right ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from helpers import in_group
from option_texts import message
from torch import Tensor, nn

from lsfd.config.load import options_from_dict
from lsfd.imaging.files import read_image, write_image
from lsfd.training.distributed import Processes
from lsfd.training.validation import Validation, validate, validation_sets

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def complaint(run_options: Options) -> Callable[..., str]:
    """A function that gives what is said about a validation set of these keys."""

    def said(**section: str) -> str:
        options = run_options()
        options["datasets"]["val"] |= section
        return message(validation_sets, options_from_dict(options))

    return said


def test_a_damaged_image_is_named(
    complaint: Callable[..., str], photographs: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.png", read_image(photographs / "chelsea.png"))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    said = complaint(dataroot_gt=str(tmp_path))
    assert said.startswith("<dict>, datasets.val.dataroot_gt: ")
    assert "b.png is not an image that can be read" in said


def test_inputs_of_another_size_are_named(
    complaint: Callable[..., str], photographs: Path, tmp_path: Path
) -> None:
    for path in photographs.iterdir():
        write_image(tmp_path / path.name, read_image(path)[:64, :64])
    said = complaint(dataroot_lq=str(tmp_path))
    assert "astronaut.png has 64x64 pixels" in said and "needs 80x64" in said


def test_an_image_that_cannot_be_scored_is_named(
    complaint: Callable[..., str], photographs: Path, tmp_path: Path
) -> None:
    image = read_image(photographs / "chelsea.png")
    write_image(tmp_path / "enough.png", image[:16, :16])
    write_image(tmp_path / "small.png", image[:16, :14])
    said = complaint(dataroot_gt=str(tmp_path))
    assert said.endswith(
        "small.png has 14x16 pixels, too few to score at x2: an image needs 15x15; remove it"
    )


class Enlarged(nn.Module):
    """Repeats pixels, and brightens them by a buffer; reproduces an image of one colour."""

    def __init__(self, brighter: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("brighter", torch.tensor(brighter))

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) + self.weight + self.brighter


@pytest.fixture
def uneven_sets(run_options: Options, photographs: Path, tmp_path: Path) -> dict[str, Any]:
    """Options with sets of four images, one of which is enlarged without a fault, and of one."""
    image = read_image(photographs / "chelsea.png")
    for number in range(3):
        part = image[: 30 + 10 * number, 7 * number :]
        write_image(tmp_path / "four" / f"part{number}.png", part)
    write_image(tmp_path / "four" / "flat.png", np.full((32, 48, 3), 100, np.uint8))
    write_image(tmp_path / "one" / "whole.png", image)
    options = run_options()
    options["val"]["metrics"] = {
        name: {"type": f"calculate_{name}", "crop_border": 2} for name in ("psnr", "ssim")
    }
    for key, name in (("val", "four"), ("val_2", "one")):
        options["datasets"][key] = {"name": name, "dataroot_gt": str(tmp_path / name)}
    return options


def validated(
    processes: Processes, options: dict[str, Any], pictures: Path | None = None, gone: str = ""
) -> Validation:
    """What a process gets whose network, but for the first one's, went astray."""
    loaded = options_from_dict(options)
    sets = validation_sets(loaded)
    processes.gather(lambda: None)
    if gone:
        Path(gone).unlink(missing_ok=True)
    return validate(Enlarged(0.1 * processes.rank), sets, loaded, pictures, processes)


def test_processes_share_the_images_and_agree_to_the_bit(
    uneven_sets: dict[str, Any], tmp_path: Path
) -> None:
    alone = validated(Processes(), uneven_sets)
    assert 20 < alone.scores["four"]["psnr"] < 60  # The mean leaves the flawless image out.
    pictures = tmp_path / "pictures"
    assert in_group(3, validated, uneven_sets, pictures) == [alone] * 3
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    assert names == [
        *("four/flat.png", "four/part0.png", "four/part1.png", "four/part2.png", "one/whole.png")
    ]


def test_an_image_that_one_process_misses_ends_all(
    uneven_sets: dict[str, Any], tmp_path: Path
) -> None:
    lost = tmp_path / "four" / "part1.png"  # The third of four images is the third process's.
    said = in_group(3, validated, uneven_sets, None, str(lost))
    assert len(set(said)) == 1 and said[0].startswith("process 2 on ")
    assert "part1.png" in said[0]
