"""Exporting: what is written is what was checked, or nothing."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from lsfd.cli import main
from lsfd.data.embedded import EMBEDDED_TRAIN, EMBEDDED_VAL, embedded_files
from lsfd.errors import LsfdError
from lsfd.evaluation.sets import find_set
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.resize import downscale
from lsfd.inference import export as exporting
from lsfd.inference.description import EXPORT_KEY, from_metadata
from lsfd.inference.export import ExportReport, export
from lsfd.inference.networks import open_network
from lsfd.inference.photographs import photograph_pairs
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.build import build_network
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.foreign import SPANDREL
from lsfd.networks.reach import reach
from lsfd.networks.student_file import load_any, save_student

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"needs the extra export: no {package}")

EDSR = {
    "type": "EDSR",
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 8,
    "num_block": 1,
    "upscale": 2,
}
CARD = StudentCard(architecture=EDSR, scale=2, method="LSFD", note="tiny")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that enlarges about as nearest neighbours do."""
    torch.manual_seed(0)
    network: Any = build_network(EDSR)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
        for conv in (network.conv_first, network.upsample[0], network.conv_last):
            conv.bias.zero_()
        for channel in range(3):
            network.conv_first.weight[channel, channel, 1, 1] = 1
            network.upsample[0].weight[4 * channel : 4 * channel + 4, channel, 1, 1] = 1
            network.conv_last.weight[channel, channel, 1, 1] = 1
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save_student(path, network, CARD)
    return path


@pytest.fixture(scope="module")
def exported(
    student: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], ExportReport]:
    """The reports of all formats in all precisions that there are, with nothing else printed."""
    folder = tmp_path_factory.mktemp("exported")
    photographs = folder / "photographs"
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        write_image(photographs / f"{name}.png", getattr(data, name)()[100:228, 160:320])
    reports = {}
    for name, precisions in (
        ("onnx", ("fp32", "fp16", "int8")),
        ("openvino", ("fp32", "fp16", "int8")),
        ("torchscript", ("fp32",)),
        ("safetensors", ("fp32", "fp16")),
    ):
        for precision in precisions:
            out = folder / f"{precision}{exporting.SUFFIXES[name]}"
            images = photographs if precision == "int8" else None
            reports[name, precision] = export(student, out, None, precision, images)
    return reports


def image(height: int, width: int) -> Any:
    return data.astronaut()[40 : 40 + height, 180 : 180 + width].copy()


# What is written


def test_every_file_is_small_and_near_to_torch(
    exported: dict[tuple[str, str], ExportReport],
) -> None:
    for (name, precision), report in exported.items():
        files = [report.path]
        if name == "openvino":
            files.append(report.path.with_suffix(".bin"))
        assert report.bytes == sum(file.stat().st_size for file in files)
        assert (report.format, report.precision) == (name, precision)
        assert str(report).startswith(f"{report.path}: {name}, {precision}, ")
        if precision == "int8":
            assert 0 < report.difference < 20
            assert report.photographs == 2 and abs(report.before - report.after) < 0.2
            assert f"{report.before:.3f} dB before, {report.after:.3f} dB after" in str(report)
        else:
            assert report.difference <= exporting.LIMITS[report.precision]
            assert (report.difference > 1e-3) == (precision == "fp16")
            assert "PSNR" not in str(report)
    weights = {key: report.path.with_suffix(".bin") for key, report in exported.items()}
    half, full = (weights["openvino", precision].stat().st_size for precision in ("fp16", "fp32"))
    assert half < 0.6 * full
    half, full = (exported["safetensors", precision].bytes for precision in ("fp16", "fp32"))
    assert half < 0.8 * full


@pytest.mark.parametrize("name", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_images_are_upscaled_as_by_torch_whole_and_in_tiles(
    name: str,
    precision: str,
    student: Path,
    exported: dict[tuple[str, str], ExportReport],
) -> None:
    network, card = open_network(exported[name, precision].path)
    assert card == CARD
    original, _ = load_any(student)
    assert reach(network) == reach(original)
    lq = image(31, 50)
    expected = Upscaler(original, 2, "cpu")(lq).astype(int)
    for tile in (None, 16):
        found = Upscaler(network, 2, "cpu", tile=tile)(lq)
        assert np.abs(found - expected).max() <= 1
    with torch.no_grad():
        batch = torch.rand(2, 3, 9, 16, generator=torch.Generator().manual_seed(0))
        together, alone = network(batch), torch.cat([network(each[None]) for each in batch])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_integers_upscale_nearly_as_well(
    name: str, exported: dict[tuple[str, str], ExportReport]
) -> None:
    network, _ = open_network(exported[name, "int8"].path)
    full, _ = open_network(exported[name, "fp32"].path)
    lq = image(31, 50)
    found, expected = (Upscaler(each, 2, "cpu")(lq).astype(int) for each in (network, full))
    assert 0 < np.abs(found - expected).mean() < 2


def test_integers_are_in_the_file(exported: dict[tuple[str, str], ExportReport]) -> None:
    import onnx

    stored = onnx.load(exported["onnx", "int8"].path).graph.initializer
    kinds = [tensor.data_type for tensor in stored if np.prod(tensor.dims) > 100]
    # All but the first and the last convolution.
    assert sorted(kinds) == [onnx.TensorProto.FLOAT] * 2 + [onnx.TensorProto.INT8] * 4


def test_a_program_carries_the_description_and_no_place_on_this_machine(
    exported: dict[tuple[str, str], ExportReport],
) -> None:
    path = exported["torchscript", "fp32"].path
    extra: dict[str, Any] = {METADATA_KEY: "", EXPORT_KEY: ""}
    program = torch.jit.load(path, _extra_files=extra)
    described = from_metadata({key: value.decode() for key, value in extra.items()})
    assert described is not None and described[0] == CARD
    assert program(torch.zeros(3, 3, 5, 7)).shape == (3, 3, 10, 14)
    with zipfile.ZipFile(path) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    for file in (torch.__file__, __file__):
        assert str(Path(file).parent.parent).encode() not in contents


def test_half_precision_students_are_students(
    exported: dict[tuple[str, str], ExportReport],
) -> None:
    from safetensors.torch import load_file

    path = exported["safetensors", "fp16"].path
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    assert open_network(path)[1] == CARD


def test_the_command_prints_the_report_and_nothing_else(
    student: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "student.onnx"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert main(["export", "-w", str(student), "-o", str(out)]) == 0
    printed, errors = capfd.readouterr()
    assert not heard and errors == ""
    assert [line.split()[0] for line in printed.splitlines()] == [f"{out}:", "differs"]
    assert [path.name for path in out.parent.iterdir()] == ["student.onnx"]


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_the_commands_run_exported_files(
    name: str, photographs: Path, exported: dict[tuple[str, str], ExportReport], tmp_path: Path
) -> None:
    file = str(exported[name, "fp32"].path)
    out, table = tmp_path / "out", tmp_path / "scores.json"
    assert main(["upscale", "-i", str(photographs), "-o", str(out), "-w", file]) == 0
    assert read_image(out / "chelsea.png").shape == (256, 320, 3)
    arguments = ["--sets", str(photographs), "--scale", "2", "--runs", "0", "--json", str(table)]
    assert main(["benchmark", "-w", file, *arguments]) == 0
    model = json.loads(table.read_text())["models"]["fp32"]
    assert model["parameters"] == sum(value.numel() for value in build_network(EDSR).parameters())


@pytest.mark.skipif(
    "LSFD_DATA" not in os.environ,
    reason="set LSFD_DATA to the folder of real images (see datasets/README.md)",
)
def test_set14_is_upscaled_as_by_torch(
    student: Path, exported: dict[tuple[str, str], ExportReport]
) -> None:
    original = Upscaler(load_any(student)[0], 2, "cpu")
    others = [
        Upscaler(open_network(exported[name, "fp32"].path)[0], 2, "cpu")
        for name in ("onnx", "openvino")
    ]
    pairs = iter(find_set("Set14", None, 2))
    for _, lq, _ in (next(pairs) for _ in range(3)):
        expected = original(lq).astype(int)
        for other in others:
            assert np.abs(other(lq) - expected).max() <= 1


# What is not written


class Fixed(nn.Module):
    """Enlarges, but by what its trial input's size decides."""

    def forward(self, lq: Tensor) -> Tensor:
        height, width = (int(side) for side in lq.shape[2:])
        grey = torch.zeros(1, 3, 2 * height, 2 * width)
        return grey + nn.functional.interpolate(lq, scale_factor=2.0)


class Decided(nn.Module):
    """Enlarges, and adds what its trial input's size decides."""

    def forward(self, lq: Tensor) -> Tensor:
        more = 0.1 if int(lq.shape[2]) == 24 else 0.0
        return nn.functional.interpolate(lq, scale_factor=2.0) + more


@pytest.mark.parametrize(
    ("network", "out", "words"),
    [
        (Fixed(), "out.pt", "not written: it fails on an input of 1x3x17x23"),
        (Decided(), "out.pt", "differs from PyTorch's by 25.5 grey levels"),
        (Decided(), "out.onnx", "not written: it fails on an input of 1x3x17x23"),
    ],
)
def test_what_bakes_in_sizes_is_not_written(
    network: nn.Module, out: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "open_network", lambda weights: (network.eval(), CARD))
    with pytest.raises(LsfdError) as error:
        export("weights", tmp_path / out)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt", ".safetensors"])
def test_a_failed_check_leaves_what_was_there(
    suffix: str, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"out{suffix}"
    out.write_text("as before")
    monkeypatch.setitem(exporting.LIMITS, "fp32", -1.0)
    with pytest.raises(LsfdError, match="not written: its result differs"):
        export(student, out)
    assert out.read_text() == "as before"
    assert list(tmp_path.iterdir()) == [out]


def test_files_that_belong_together_come_together(tmp_path: Path) -> None:
    one, other = tmp_path / "out.xml", tmp_path / "folder" / "out.bin"
    exporting._write({one: b"new", other: b"new"})
    assert one.read_bytes() == other.read_bytes() == b"new"
    other.unlink()
    other.mkdir()  # Cannot be replaced by a file.
    with pytest.raises(LsfdError, match="cannot be written"):
        exporting._write({one: b"newer", other: b"newer"})
    assert not one.exists()  # It would describe what is not there.
    assert sorted(tmp_path.rglob("*")) == [other.parent, other]


@pytest.mark.parametrize(
    ("out", "arguments", "words"),
    [
        ("out.zip", {}, r"no format ends in '.zip'; valid: .onnx, .pt, .safetensors, .xml"),
        ("out", {}, "no format ends in ''"),
        ("out.onnx", {"format": "openvino"}, "a file of openvino ends in .xml"),
        ("out.onnx", {"format": "onxn"}, "format 'onxn' is unknown; did you mean 'onnx'"),
        ("out.onnx", {"precision": "int4"}, "precision 'int4' is unknown; did you mean 'int8'"),
        ("out.pt", {"precision": "fp16"}, "export without --half"),
        ("out.pt", {"precision": "int8"}, "'lsfd quantize' writes"),
        ("out.safetensors", {"precision": "int8"}, "'lsfd quantize' writes"),
        ("out.onnx", {"images": Path("photos")}, "add --int8"),
        ("out.onnx", {"images": Path("no photos"), "precision": "int8"}, "does not exist"),
    ],
)
def test_what_cannot_be_is_said(
    out: str, arguments: dict[str, Any], words: str, student: Path, tmp_path: Path
) -> None:
    with pytest.raises(LsfdError) as error:
        export(student, tmp_path / out, **arguments)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_export_is_not_exported_again(
    tmp_path: Path, exported: dict[tuple[str, str], ExportReport]
) -> None:
    with pytest.raises(LsfdError, match="is exported already"):
        export(exported["onnx", "fp32"].path, tmp_path / "out.xml")


def test_only_own_networks_become_students(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = CARD.model_copy(update={"architecture": {"type": SPANDREL}})
    network = build_network(EDSR).eval()
    monkeypatch.setattr(exporting, "open_network", lambda weights: (network, card))
    with pytest.raises(LsfdError, match="this one is spandrel's"):
        export("weights", tmp_path / "out.safetensors")


def test_a_network_too_large_for_half_precision_is_not_written(tmp_path: Path) -> None:
    network: Any = build_network(EDSR).eval()
    with torch.no_grad():
        network.conv_first.weight.fill_(1e5)
    weights = tmp_path / "large.safetensors"
    save_student(weights, network, CARD)
    out = tmp_path / "out" / "half.safetensors"
    with pytest.raises(LsfdError, match="not finite") as error:
        export(weights, out, precision="fp16")
    assert str(error.value).startswith(str(out))
    assert not out.exists()


# Photographs


def test_every_second_photograph_calibrates() -> None:
    calibrating, scored = photograph_pairs(None, 4, 8)
    files = embedded_files()
    assert len(calibrating) + len(scored) == len(files) == len(EMBEDDED_TRAIN + EMBEDDED_VAL)
    assert len(calibrating) - len(scored) in (0, 1)
    for lr, hr in (*calibrating, *scored):
        assert max(lr.shape[:2]) <= 128 and lr.shape[0] % 8 == lr.shape[1] % 8 == 0
        np.testing.assert_array_equal(lr, downscale(hr, 4))


def test_photographs_are_many_and_large_enough(tmp_path: Path, photographs: Path) -> None:
    calibrating, scored = photograph_pairs(photographs, 2, 1)
    assert [pair.hr.shape for pair in (*calibrating, *scored)] == [(128, 160, 3)] * 2
    write_image(tmp_path / "small.png", image(31, 31))
    write_image(tmp_path / "large.png", image(32, 33))
    with pytest.raises(LsfdError, match=f"32x32 pixels, and {tmp_path} has 1"):
        photograph_pairs(tmp_path, 2, 1)
    for number in range(70):
        write_image(tmp_path / f"{number}.png", image(32, 32))
    assert len([*photograph_pairs(tmp_path, 2, 1)[0], *photograph_pairs(tmp_path, 2, 1)[1]]) <= 32
