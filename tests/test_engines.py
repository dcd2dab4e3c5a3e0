"""The same image by OpenVINO and by PyTorch, and which of them is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.raster import Raster
from lsfd.inference import engines, memory
from lsfd.inference.engines import AnyUpscaler, open_upscaler
from lsfd.inference.folder import upscale_path
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.build import build_network
from lsfd.networks.card import StudentCard
from lsfd.networks.student_file import save_student

pytest.importorskip("openvino", reason="needs openvino (pip install lsfd[export])")

from lsfd.inference import openvino_upscaler
from lsfd.inference.openvino_graph import computes_bf16
from lsfd.inference.openvino_upscaler import OpenVinoUpscaler

IMAGES = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 2}
EDSR = {"type": "EDSR", **IMAGES}
QUANTISED = {"type": "QuantizedEDSR", **IMAGES}
CHEAP = {"type": "CheapEDSR", **IMAGES}


def save(path: Path, options: dict[str, Any], std: float = 0.1) -> Path:
    torch.manual_seed(0)
    network = build_network(options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    save_student(path, network, StudentCard(architecture=options, scale=2))
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("engines") / "edsr.safetensors", EDSR)


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def larger(upscaler: AnyUpscaler, image: NDArray[Any]) -> NDArray[np.int64]:
    height, width, bands = image.shape
    result = np.empty((2 * height, 2 * width, bands), image.dtype)
    upscaler.enlarge(Raster.from_array(image), Raster.from_array(result))
    return result.astype(np.int64)


def opened(weights: Path, **arguments: Any) -> AnyUpscaler:
    return open_upscaler(weights, **{"device": "cpu", "precision": "fp32", **arguments})[0]


# The same results


@pytest.mark.parametrize("shape", [(23, 31, 3), (23, 31, 1), (9, 8, 2), (12, 31, 4), (1, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [EDSR, CHEAP], ids=lambda each: each["type"])
def test_engines_agree(
    shape: tuple[int, ...], dtype: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    weights, image = save(tmp_path / "student.safetensors", options), noise(*shape, dtype=dtype)
    by_openvino = opened(weights, engine="openvino")
    assert isinstance(by_openvino, OpenVinoUpscaler)
    result = larger(by_openvino, image)
    assert np.abs(result - larger(opened(weights, engine="torch"), image)).max() <= 1
    assert len(np.unique(result)) > 2


def test_self_ensembles_agree(student: Path) -> None:
    image = noise(12, 9, 3)
    both = [opened(student, engine=name, ensemble=True) for name in ("openvino", "torch")]
    one, other = (larger(each, image) for each in both)
    assert np.abs(one - other).max() <= 1
    assert not np.array_equal(one, larger(opened(student), image))


def test_bf16_is_near(student: Path) -> None:
    if not computes_bf16():
        pytest.skip("this processor has no bf16")
    image = noise(40, 40, 3)
    exact, rounded = (
        larger(opened(student), image),
        larger(opened(student, precision="auto"), image),
    )
    assert 0 < np.abs(exact - rounded).mean() < 1


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_tiles_equal_the_whole(student: Path, precision: str) -> None:
    image = noise(45, 38, 3)
    whole = larger(opened(student, precision=precision), image)
    tiled = larger(opened(student, precision=precision, tile=16), image)
    assert np.abs(whole - tiled).max() <= 1


def test_an_image_does_not_depend_on_its_company(student: Path, tmp_path: Path) -> None:
    for number in range(5):
        image = noise(30 + number, 40, 3)
        write_image(tmp_path / "in" / f"{number}.png", image)
    upscaler = opened(student, precision="auto")
    report = upscale_path(tmp_path / "in", tmp_path / "out", upscaler)
    assert [path.stem for path in report.done] == ["0", "1", "2", "3", "4"]
    for path in report.done:
        alone = opened(student, precision="auto")
        upscale_path(tmp_path / "in" / path.name, tmp_path / "alone.png", alone)
        np.testing.assert_array_equal(read_image(path), read_image(tmp_path / "alone.png"))


def test_values_beyond_all_numbers_are_an_error(tmp_path: Path) -> None:
    weights = save(tmp_path / "wild.safetensors", EDSR, std=1e20)
    with pytest.raises(LsfdError, match="NaN or infinity"):
        larger(opened(weights), noise(8, 8, 3))


# Memory


@pytest.mark.parametrize("version", [1, 2])
def test_what_files_fill_of_a_container_can_be_had(tmp_path: Path, version: int) -> None:
    prefix = "total_" if version == 1 else ""
    folder = tmp_path / "memory" if version == 1 else tmp_path
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder.mkdir(exist_ok=True)
    for name, value in zip(names, (1000, 990), strict=True):
        (folder / name).write_text(f"{value}\n")
    stat = f"anon 240\n{prefix}active_file 300\n{prefix}inactive_file 450\n"
    (folder / "memory.stat").write_text(stat)
    assert memory._control_group(tmp_path) == 760
    (folder / names[0]).write_text("max\n")
    assert memory._control_group(tmp_path) is None


def test_the_tile_follows_from_the_memory(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = opened(student)
    assert isinstance(upscaler, OpenVinoUpscaler)
    image, sizes = noise(90, 80, 3), []
    whole = larger(opened(student), image)
    infer = openvino_upscaler.infer

    def noting(request: Any, pixels: NDArray[Any]) -> Any:
        sizes.append(pixels.shape[1] * pixels.shape[2])
        return infer(request, pixels)

    monkeypatch.setattr(openvino_upscaler, "infer", noting)
    each = upscaler._bytes_per_pixel
    monkeypatch.setattr(openvino_upscaler, "cpu_budget", lambda: 60 * 60 * each)
    assert np.abs(larger(upscaler, image) - whole).max() <= 1
    assert len(sizes) > 1
    assert max(sizes) <= 60 * 60


LITTLE_MEMORY = """
import resource, sys
import numpy as np
from lsfd.imaging.raster import Raster
from lsfd.inference.engines import open_upscaler

def larger(upscaler, image):
    result = np.empty((2 * len(image), 2 * len(image), 3), np.uint8)
    upscaler.enlarge(Raster.from_array(image), Raster.from_array(result))
    return result

image = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
upscaler, _ = open_upscaler(sys.argv[1], device="cpu", precision="fp32", tile=1000)
small, _ = open_upscaler(sys.argv[1], device="cpu", precision="fp32", tile=100)
expected = larger(small, image)
larger(upscaler, image[:9, :9])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (200 << 20)
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
result = larger(upscaler, image)
resource.setrlimit(resource.RLIMIT_AS, before)
assert upscaler._largest is not None, "the memory was enough"
assert np.abs(result.astype(int) - expected).max() <= 1
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_that_openvino_does_not_get_makes_tiles_smaller(student: Path) -> None:
    command = [sys.executable, "-c", LITTLE_MEMORY, str(student)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The choice


def test_openvino_is_taken_unasked_and_needs_no_pytorch(student: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "small.png", noise(9, 8, 3))
    code = (
        "import sys\n"
        "from lsfd.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "heavy = {'torch', 'torchvision', 'basicsr', 'scipy', 'skimage', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "raise SystemExit(status)\n"
    )
    arguments = [
        "upscale",
        "-i",
        tmp_path / "small.png",
        "-o",
        tmp_path / "large.png",
        "-w",
        student,
    ]
    command = [sys.executable, "-c", code, *map(str, arguments), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "large.png").shape == (18, 16, 3)


def test_what_openvino_cannot_do_is_left_to_pytorch(tmp_path: Path) -> None:
    weights = save(tmp_path / "student.safetensors", QUANTISED)
    assert isinstance(opened(weights), Upscaler)
    with pytest.raises(LsfdError, match="quantised"):
        opened(weights, engine="openvino")


def test_pytorch_can_be_asked_for(student: Path) -> None:
    assert isinstance(opened(student, engine="torch"), Upscaler)


def test_pytorch_is_taken_where_openvino_is_missing(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert isinstance(opened(student), Upscaler)
    with pytest.raises(LsfdError, match="pip install openvino"):
        opened(student, engine="openvino")


def test_wrong_arguments_are_named(student: Path) -> None:
    with pytest.raises(LsfdError, match=r"engine 'openvin' is unknown.*openvino"):
        opened(student, engine="openvin")
    with pytest.raises(LsfdError, match="no precision 'fp16'"):
        opened(student, engine="openvino", precision="fp16")
    with pytest.raises(LsfdError, match="needs a GPU"):
        opened(student, precision="fp16")
    with pytest.raises(LsfdError, match="at least 1 pixel"):
        opened(student, tile=0)
    with pytest.raises(LsfdError, match="--device cpu"):
        opened(student, engine="openvino", device="cuda")
    with pytest.raises(LsfdError, match="mix: this network"):
        opened(student, mix={"fidelity": 1.0})
