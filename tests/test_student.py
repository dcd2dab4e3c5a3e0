from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lsfd.compat

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.swinir_arch import SwinIR
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import lsfd
from lsfd import LsfdError, Student, load_student
from lsfd.inference.upscaler import Upscaler
from lsfd.networks import ready
from lsfd.networks.card import StudentCard
from lsfd.networks.student_file import save_student

OPTIONS = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2}
CARD = StudentCard(architecture={**OPTIONS, "upscale": 2}, scale=2, method="LSFD")


def edsr() -> EDSR:
    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=8, num_block=2, upscale=2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    return network


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "small.safetensors"
    save_student(path, edsr(), CARD)
    return path


@pytest.fixture(scope="module")
def student(file: Path) -> Student:
    return load_student(file, device="cpu", precision="fp32")


def pixels(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def test_equals_the_upscaler(student: Student, file: Path) -> None:
    image = pixels(13, 17, 3)
    expected = Upscaler(edsr(), 2, "cpu")(image)
    by_torch = load_student(file, device="cpu", precision="fp32", engine="torch")
    np.testing.assert_array_equal(by_torch(image), expected)
    assert np.abs(student(image).astype(int) - expected).max() <= 1  # Another engine's rounding.


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4), (1, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_an_array_stays_what_it_is(student: Student, shape: tuple[int, ...], dtype: Any) -> None:
    image = pixels(*shape)
    image = image / 255 if dtype in (np.float32, np.float64) else image
    larger = student(image.astype(dtype))
    assert larger.dtype == dtype
    assert larger.shape == (shape[0] * 2, shape[1] * 2, *shape[2:])


def test_floats_and_integers_agree(student: Student) -> None:
    image = pixels(12, 10, 3)
    levels = student(image / 255.0) * 255
    assert np.abs(levels - student(image)).max() <= 0.5 + 1e-4
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_tensors_and_arrays_agree(student: Student) -> None:
    image = pixels(12, 10, 3) / 255.0
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    np.testing.assert_array_equal(student(tensor).permute(1, 2, 0).numpy(), student(image))


def test_a_batch_equals_its_images(student: Student) -> None:
    images = pixels(3, 8, 9, 3)
    np.testing.assert_array_equal(student(images), np.stack([student(each) for each in images]))
    tensor = torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2)
    singles = torch.stack([student(each) for each in tensor])
    torch.testing.assert_close(student(tensor), singles, atol=1e-5, rtol=0)
    mixed = [pixels(4, 5, 3), pixels(6, 3)]
    assert [each.shape for each in student.batch(mixed)] == [(8, 10, 3), (12, 6)]


def test_a_tensor_keeps_dtype_and_carries_no_gradients(student: Student) -> None:
    tensor = torch.rand(2, 3, 5, 6, dtype=torch.float16, requires_grad=True)
    larger = student(tensor)
    assert (larger.dtype, larger.shape) == (torch.float16, (2, 3, 10, 12))
    assert not larger.requires_grad


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("I;16", "I;16"), ("1", "L"),
     ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB")],
)  # fmt: skip
def test_pil_modes(student: Student, mode: str, becomes: str) -> None:
    rgb = Image.fromarray(pixels(6, 7, 3))
    image = rgb.convert(mode)
    larger = student(image)
    assert (larger.mode, larger.size) == (becomes, (14, 12))
    same = image if becomes == mode else image.convert(becomes)
    np.testing.assert_array_equal(np.asarray(larger), student(np.asarray(same)))


def test_a_palette_with_transparency_keeps_it(student: Student) -> None:
    image = Image.fromarray(pixels(6, 7) % 4, "L").convert("P")
    image.info["transparency"] = 0
    assert student(image).mode == "RGBA"


def test_pil_keeps_the_colour_profile(student: Student) -> None:
    image = Image.fromarray(pixels(6, 7, 3))
    image.info["icc_profile"] = b"profile"
    assert student(image).info["icc_profile"] == b"profile"


def test_sizes_that_are_no_multiple_of_a_window(tmp_path: Path) -> None:
    architecture = {
        "upscale": 2, "img_size": 8, "window_size": 4, "depths": [1], "embed_dim": 8,
        "num_heads": [2], "mlp_ratio": 2, "upsampler": "pixelshuffledirect",
    }  # fmt: skip
    torch.manual_seed(0)
    card = StudentCard(architecture={"type": "SwinIR", **architecture}, scale=2)
    save_student(tmp_path / "swin.safetensors", SwinIR(**architecture), card)
    student = load_student(tmp_path / "swin.safetensors", device="cpu", precision="fp32")
    image = pixels(3, 6, 3)
    tensor = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)
    levels = student(tensor).permute(1, 2, 0).numpy() * 255
    assert np.abs(levels - student(image)).max() <= 0.5 + 1e-3


def test_threads_take_turns(student: Student) -> None:
    images = [pixels(10 + k, 12, 3) for k in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(student, images))
    for image, larger in zip(images, together, strict=True):
        np.testing.assert_array_equal(larger, student(image))


@pytest.mark.parametrize(
    "image",
    [pixels(5), pixels(5, 5, 5), pixels(0, 5, 3), torch.rand(5, 5), torch.rand(1, 5, 4, 4),
     np.array(3, np.uint8), np.zeros((1, 2, 3, 4, 3), np.uint8)],
)  # fmt: skip
def test_other_shapes_end_in_a_sentence(student: Student, image: Any) -> None:
    with pytest.raises(LsfdError, match="no shape of an image"):
        student(image)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4, 3), np.int32), "not int32"),
        (np.zeros((4, 4, 3), bool), "not bool"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "floating point in 0..1, not torch.uint8"),
        ("photo.png", "not str; read files with PIL.Image.open"),
        (np.full((4, 4, 3), np.nan), "NaN"),
    ],
)
def test_other_things_end_in_a_sentence(student: Student, image: Any, sentence: str) -> None:
    with pytest.raises(LsfdError, match=sentence):
        student(image)


def test_too_large_a_tensor_ends_in_a_sentence(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = load_student(file, device="cpu", engine="torch")

    def fail(planes: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(student._upscaler, "planes", fail)
    for image in (torch.rand(3, 4, 5), np.zeros((4, 5, 3), np.float32)):
        with pytest.raises(LsfdError, match=r"not enough memory for an image of 5 x 4.*uint8"):
            student(image)


def test_mix_is_refused_where_there_is_none(file: Path) -> None:
    with pytest.raises(LsfdError, match="mix: this network, EDSR"):
        load_student(file, mix={"fidelity": 1.0})


def test_names(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "FOLDER", file.parent)
    assert load_student("small").card.method == "LSFD"
    with pytest.raises(LsfdError, match=r"'smal' is neither a file nor .* did you mean 'small'"):
        load_student("smal")
    with pytest.raises(LsfdError, match=r"small.safetensors: there is no such file"):
        load_student(tmp_path / "small.safetensors")


def test_every_ready_student_opens() -> None:
    students = ready.ready_students()
    assert "edsr-s-x4" in students
    for name in students:
        student = load_student(name, device="cpu")
        assert student(pixels(4, 4, 3)).shape == (4 * student.scale, 4 * student.scale, 3)
        assert student.card.scores


def test_the_package_is_light_and_says_what_it_has() -> None:
    script = "import lsfd, sys; print('torch' in sys.modules, lsfd.__version__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.split()[0] == "False"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lsfd.nothing  # noqa: B018
