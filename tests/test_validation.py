"""The validation sets of an option file: wrong images are named before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from option_texts import message

from lsfd.config.load import options_from_dict
from lsfd.imaging.files import read_image, write_image
from lsfd.training.validation import validation_sets

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
