"""``lsfd upscale -i - -o -``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import STUDENT
from PIL import Image

from lsfd.cli import main
from lsfd.imaging.files import read_image
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student


class Pipe:
    """Standard input or output as a program has it: text, and bytes below."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "student.safetensors"
    save_student(path, build_network(STUDENT), StudentCard(architecture=STUDENT, scale=2))
    return str(path)


def encoded(form: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(("form", "expected"), [(None, "PNG"), ("jpg", "JPEG"), ("tif", "TIFF")])
def test_from_standard_input_to_standard_output(
    form: str | None,
    expected: str,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Pipe()
    monkeypatch.setattr(sys, "stdin", Pipe(encoded("BMP")))
    monkeypatch.setattr(sys, "stdout", output)
    arguments = ["upscale", "-i", "-", "-o", "-", "-w", weights, "--device", "cpu"]
    assert main([*arguments, *(["--format", form] if form else [])]) == 0
    image = Image.open(io.BytesIO(output.buffer.getvalue()))
    assert (image.format, image.size) == (expected, (30, 24))
    assert "1 upscaled" in capsys.readouterr().err


def test_between_a_file_and_a_pipe(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    monkeypatch.setattr(sys, "stdin", Pipe(encoded()))
    arguments = ["upscale", "-w", weights, "--device", "cpu"]
    assert main([*arguments, "-i", "-", "-o", str(tmp_path / "b.png")]) == 0
    output = Pipe()
    monkeypatch.setattr(sys, "stdout", output)
    assert main([*arguments, "-i", str(tmp_path / "a.png"), "-o", "-"]) == 0
    piped = np.asarray(Image.open(io.BytesIO(output.buffer.getvalue())))
    assert np.array_equal(piped, read_image(tmp_path / "b.png"))


def test_what_is_no_image_gives_no_output_and_status_1(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Pipe()
    monkeypatch.setattr(sys, "stdin", Pipe(b"hello"))
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["upscale", "-i", "-", "-o", "-", "-w", weights]) == 1
    assert not output.buffer.getvalue()
    assert "not an image" in capsys.readouterr().err


def test_a_folder_does_not_go_to_standard_output(
    weights: str, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upscale", "-i", str(photographs), "-o", "-", "-w", weights]) == 2
    assert "one image goes to standard output" in capsys.readouterr().err
