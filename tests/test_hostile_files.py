"""Files from strangers never execute, escape, or take more memory than they are worth."""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import pickle
import re
import tarfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lsfd.config.load import load_options
from lsfd.data.archives import extract
from lsfd.data.store import INDEX_FILE, open_store
from lsfd.distillers.perception import load_vgg
from lsfd.errors import LsfdError
from lsfd.evaluation.report import BenchmarkReport, BenchmarkRow
from lsfd.evaluation.scores import ImageScores, SetScores
from lsfd.imaging import raster as raster_module
from lsfd.imaging.files import find_images, read_image
from lsfd.imaging.picture import read_picture
from lsfd.inference.description import ExportNote, to_metadata
from lsfd.inference.engines import open_upscaler
from lsfd.inference.export import export
from lsfd.inference.naming import plan
from lsfd.inference.networks import open_network
from lsfd.inference.onnx import set_metadata
from lsfd.inference.openvino import to_openvino
from lsfd.metrics.lpips import Lpips
from lsfd.networks.build import build_network
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.seal import sealed, with_seal
from lsfd.networks.student_file import load_any, read_student, save_student
from lsfd.networks.teachers import load_teacher
from lsfd.networks.weights import read_state_dict
from lsfd.reporting.latex import latex_table
from lsfd.reporting.tables import markdown_table
from lsfd.torch_files import read_torch_file
from lsfd.training.checkpoint import load_checkpoint, newest_readable
from lsfd.training.records import read_records
from lsfd.training.teacher_cache import (
    HEADER_BYTES,
    SEAL_BYTES,
    Records,
    TeacherCache,
    _seal,
)

EDSR = {
    "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 6, "num_block": 2, "upscale": 2,
}  # fmt: skip
MEGABYTE = 1 << 20


@contextmanager
def little_memory(most: int = 512 * MEGABYTE) -> Iterator[None]:
    """Fail the test if the process comes to hold so many bytes more."""
    anew = Path("/proc/self/clear_refs")
    if not anew.exists():
        pytest.skip("needs Linux: /proc/self/clear_refs begins the count of the most memory anew")
    anew.write_text("5")
    before = most_held()
    yield
    assert most_held() - before < most


def most_held() -> int:
    """Return the most bytes that the process has held."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) << 10


def refusal(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """Return the sentence by which something is refused."""
    with pytest.raises(LsfdError) as error:
        call(*arguments, **options)
    sentence = str(error.value)
    assert sentence and "\n" not in sentence
    return sentence


# Code in pickles


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


class WithState(OrderedDict[str, Any]):
    """Unpickled, it calls a function when its state is put back."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def __reduce__(self) -> Any:
        return OrderedDict, (), {"state": self.call}


def payloads(trace: Path) -> dict[str, Any]:
    """Return things that make a folder when they are unpickled."""
    code = f"__import__('os').mkdir({str(trace)!r})"
    call = Call(os.mkdir, str(trace))
    return {
        "a system call": call,
        "a shell": Call(os.system, f"mkdir '{trace}'"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "in a state dict": {"params": {"weight": torch.zeros(1)}, "extra": [call]},
        "in the state of an allowed class": WithState(call),
        "as an argument of an allowed function": Call(OrderedDict, [["key", call]]),
    }


def write_payload(path: Path, payload: Any, form: str) -> None:
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")


def _lpips(path: Path) -> object:
    place = path.parent / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(path.parent))
        return Lpips("squeeze")


def _renamed(path: Path, suffix: str) -> Path:
    return path.rename(path.with_suffix(suffix))


def _openvino(path: Path) -> object:
    path.with_suffix(".bin").write_bytes(path.read_bytes())
    return open_network(_renamed(path, ".xml"))


def _store(path: Path) -> object:
    return open_store(path.rename(path.with_name(INDEX_FILE)).parent)


READERS: dict[str, Callable[[Path], object]] = {
    "weights": read_state_dict,
    "lsfd upscale": open_upscaler,
    "lsfd benchmark": open_network,
    "lsfd export": lambda path: export(path, path.parent / "out.onnx"),
    "teacher": lambda path: load_teacher({"type": "auto"}, path),
    "student with options": lambda path: load_any(path, EDSR),
    "student": lambda path: read_student(_renamed(path, ".safetensors")),
    "another name": lambda path: load_any(_renamed(path, ".ckpt")),
    "resume_state": load_checkpoint,
    "auto_resume": lambda path: newest_readable(path.rename(path.with_name("5.state")).parent),
    "LPIPS": _lpips,
    "VGG": load_vgg,
    "ONNX": lambda path: open_network(_renamed(path, ".onnx")),
    "OpenVINO": _openvino,
    "store": _store,
    "option file": lambda path: load_options(path),
}


@pytest.mark.parametrize("form", ["zip", "before torch 1.6", "bare pickle"])
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_executes_code(tmp_path: Path, reader: str, form: str) -> None:
    if reader in ("ONNX", "OpenVINO"):
        pytest.importorskip("onnxruntime", reason="needs the extra export")
        pytest.importorskip("openvino", reason="needs the extra export")
    for number, name in enumerate(payloads(tmp_path / "trace")):
        trace = tmp_path / f"trace{number}"
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "net.pth"
        write_payload(path, payloads(trace)[name], form)
        refusal(READERS[reader], path)
        assert not trace.exists(), name


def test_the_payloads_are_live(tmp_path: Path) -> None:
    for number, name in enumerate(payloads(tmp_path)):
        trace = tmp_path / f"trace{number}"
        path = tmp_path / f"{number}.pth"
        write_payload(path, payloads(trace)[name], "zip")
        torch.load(path, weights_only=False)
        assert trace.exists(), name


def test_a_cache_with_a_pickle_in_it_is_computed_anew(tmp_path: Path) -> None:
    lq = torch.ones(1, 3, 2, 2)
    trace = tmp_path / "trace"
    for _ in range(2):
        cache = TeacherCache(tmp_path / "cache", {"teacher": {"network": "EDSR"}}, [], 1)
        output, _ = cache(lq, 0, lambda given: (2 * given, {}))
        assert torch.equal(output, 2 * lq)
        for file in cache.folder.iterdir():
            file.write_bytes(pickle.dumps(Call(os.mkdir, str(trace))))
    assert not trace.exists()


# Memory that a file claims


def test_packed_tensors_are_refused_unread(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(64 * MEGABYTE)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    (tmp_path / "plain.pth").unlink()
    assert (tmp_path / "bomb.pth").stat().st_size < MEGABYTE
    with little_memory(64 * MEGABYTE):
        for reader in (read_state_dict, read_torch_file):
            assert "not what torch.save writes" in refusal(reader, tmp_path / "bomb.pth")


def test_bytes_that_many_entries_share_are_not_read_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/data/0", bytes(MEGABYTE))
        first = archive.filelist[1]
        for number in range(1, 4):
            other = copy.copy(first)  # The directory names the same bytes once more.
            other.filename = f"net/data/{number}"
            archive.filelist.append(other)
    assert "not what torch.save writes" in refusal(read_torch_file, path)


def test_one_number_stretched_over_a_large_network_is_refused(tmp_path: Path) -> None:
    options = {**EDSR, "num_feat": 4096, "num_block": 64}
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_network(options).state_dict().items()}
    stretched = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    torch.save(stretched, tmp_path / "net.pth")
    with little_memory():
        assert "made to fill the memory" in refusal(load_any, tmp_path / "net.pth")


@pytest.mark.parametrize(
    "strange",
    [
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_of_strange_kinds_are_refused(tmp_path: Path, strange: torch.Tensor) -> None:
    torch.save({"weight": strange, "other": torch.zeros(1)}, tmp_path / "net.pth")
    assert "net.pth" in refusal(read_state_dict, tmp_path / "net.pth")


CLAIMS: dict[str, dict[str, Any]] = {
    "blocks": {"num_block": 4097},
    "groups of blocks": {"type": "RCAN", "num_group": 4096, "num_block": 4096},
    "few groups of many": {"type": "RCAN", "num_group": 2, "num_block": 513},
    "width": {"num_feat": 4096, "num_block": 64},
    "attention": {
        "type": "SwinIR",
        "embed_dim": 4096,
        "depths": [60],
        "num_heads": [1],
        "window_size": 8,
    },
    "layers of attention": {"type": "SwinIR", "depths": [4096] * 5, "num_heads": [1] * 5},
    "a large mask": {"type": "SwinIR", "img_size": 4096, "window_size": 8},
    "widths": {"type": "SlimEDSR", "block_widths": [1] * 100_000},
    "atoms": {"type": "SparseSR", "num_atoms": 1 << 20, "num_feat": 4096, "patch": 16},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_card_that_claims_a_huge_network_is_refused_at_once(tmp_path: Path, claim: str) -> None:
    path = tmp_path / "student.safetensors"
    save_file(
        build_network(EDSR).state_dict(),
        path,
        {METADATA_KEY: json.dumps({"architecture": {**EDSR, **CLAIMS[claim]}, "scale": 2})},
    )
    if CLAIMS[claim].get("type", "EDSR") != "EDSR":
        card = {"architecture": {**CLAIMS[claim]}, "scale": 2}
        if CLAIMS[claim]["type"] in ("RCAN", "SlimEDSR"):
            card["architecture"] |= {"num_in_ch": 3, "num_out_ch": 3}
        save_file(load_file(path), path, {METADATA_KEY: json.dumps(card)})
    with little_memory():
        sentence = refusal(read_student, path)
    assert "do not fit" in sentence or "block" in sentence, sentence


def test_a_picture_that_claims_many_pixels_takes_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = Image.new("L", (1, 1))
    header.save(tmp_path / "a.png")
    claiming = _with_size(Image.new("1", (8, 8)), 100_000, 100_000)
    (tmp_path / "bomb.png").write_bytes(claiming)
    with little_memory(64 * MEGABYTE):
        assert "claims more pixels" in refusal(read_picture, tmp_path / "bomb.png", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it takes memory for it"))
        refusal(read_image, tmp_path / "bomb.png")
    (tmp_path / "large.png").write_bytes(claiming + bytes(2 << 20))  # Which could be true.
    monkeypatch.setattr(raster_module, "_SPARE", 1 << 60)  # As if the disk were nearly full.
    with little_memory(64 * MEGABYTE):
        assert "MB free" in refusal(read_picture, tmp_path / "large.png", tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".png"}


def _with_size(image: Image.Image, width: int, height: int) -> bytes:
    """Return a PNG file whose header claims another size."""
    import struct
    import zlib

    data = io.BytesIO()
    image.save(data, "PNG")
    content = bytearray(data.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_an_image_for_training_has_a_limit(tmp_path: Path) -> None:
    for name, size in (("wide.png", (1 << 15, (1 << 13) + 1)), ("tall.png", (1 << 13, 1 << 16))):
        claiming = _with_size(Image.new("L", (8, 8)), *size) + bytes(1 << 17)  # It could be true.
        (tmp_path / name).write_bytes(claiming)
        with little_memory(128 * MEGABYTE):
            assert "is not an image that can be read" in refusal(read_image, tmp_path / name)
        with pytest.raises(cv2.error, match="CV_IO_MAX_IMAGE_PIXELS"):  # Not for lack of pixels.
            cv2.imdecode(np.frombuffer(claiming, np.uint8), cv2.IMREAD_UNCHANGED)


def test_a_huge_description_in_a_tar_archive_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(128):
            file.write(bytes(MEGABYTE))
    with little_memory(64 * MEGABYTE):
        refusal(extract, tmp_path / "bomb.tar.gz", tmp_path / "out")
    good = tarfile.TarInfo("good.png")
    with tarfile.open(tmp_path / "late.tar", "w") as archive:
        archive.addfile(good, io.BytesIO())
    late = (tmp_path / "late.tar").read_bytes()[:512] + info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "late.tar").write_bytes(late + bytes(4096))
    assert "claims" in refusal(extract, tmp_path / "late.tar", tmp_path / "out")


def test_a_layout_that_a_cache_claims_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "output.bin"
    claims: list[dict[str, Any]] = [
        {"shape": [1 << 40], "stride": [1], "dtype": "float32"},
        {"shape": [4], "stride": [1], "dtype": "load"},
        {"shape": [4], "stride": [1], "dtype": "ops"},
        {"shape": [4], "stride": [-1], "dtype": "float32"},
        {"shape": [4, 4], "stride": [1], "dtype": "float32"},
        {"shape": "ab", "stride": [1, 1], "dtype": "float32"},
        {"shape": [4]},
    ]
    for text in [*map(json.dumps, claims), "[" * 3000, "5"]:
        header = text.ljust(HEADER_BYTES - SEAL_BYTES).encode()
        path.write_bytes(header + _seal(header) + bytes(200))
        with little_memory(64 * MEGABYTE):
            assert Records(path).read(0, bytes(32), torch.device("cpu")) is None


# Option files and what they name


def options_with(folder: Path, change: str) -> Path:
    path = folder / "run.yml"
    path.write_text(change)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: " + "x" * (1 << 19), "no option file needs"),
        ('name: "\\e[2J"', "control characters"),
        ('"\\e[2J": 1', "control characters"),
        ('name: "\\0"', "control characters"),
        ('name: "\\ud800"', "control characters"),
        ("? [a, b]\n: 1", "is not text"),
        ("extends: .", "cannot be read"),
    ],
)
def test_what_no_option_file_needs_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(load_options, options_with(tmp_path, text))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("pipe.yml", "pipe.pth", "pipe.safetensors", "pipe.onnx", "pipe.png"):
        os.mkfifo(tmp_path / name)

    def read_all() -> None:
        refusal(load_options, tmp_path / "pipe.yml")
        refusal(load_options, options_with(tmp_path, f"extends: {tmp_path / 'pipe.yml'}"))
        refusal(load_checkpoint, tmp_path / "pipe.pth")
        for name in ("pipe.pth", "pipe.safetensors", "pipe.onnx"):
            refusal(open_network, tmp_path / name)
        refusal(plan, [tmp_path], tmp_path / "out", "", None)
        refusal(plan, [tmp_path / "pipe.png"], tmp_path / "out", "", None)
        assert find_images(tmp_path) == []
        done.set()

    done = threading.Event()
    thread = threading.Thread(target=read_all, daemon=True)
    thread.start()
    assert done.wait(60)


@pytest.mark.parametrize(
    "override",
    [
        "name=../../x", "name=/tmp/x", "name=..", "datasets.val.name=../../x",
        "model_type=SRModel", "train.optim_g.type=load", "train.optim_g.type=Optimizer",
        "name=!!python/object/apply:os.system [id]", "scale=__import__('os').getpid()",
        "x" + ".x" * 3000 + "=1", "\x1b[2J=1", "name=\x1b[2J", "name=\udc80", "\udc80=1", "train=1",
        "__class__.__init__.__globals__=1",
    ],
)  # fmt: skip
def test_overrides_reach_nothing_but_options(tmp_path: Path, override: str) -> None:
    text = """
        name: run
        scale: 4
        datasets: {train: {dataroot_gt: hr, gt_size: 96}, val: {name: Set5, dataroot_gt: set5}}
        network_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, upscale: 4}
        train: {total_iter: 10, optim_g: {type: Adam, lr: 1e-4}}
    """
    path = options_with(tmp_path, text)
    load_options(path)
    sentence = refusal(load_options, path, [override])
    assert "\x1b" not in sentence


@pytest.mark.parametrize("name", ["Module", "ESRGANModel", "VGGStyleDiscriminator", "os.system", 5])
def test_no_network_but_those_for_super_resolution_is_built(name: object) -> None:
    sentence = refusal(build_network, {"type": name})
    assert "there is no network" in sentence or "no text" in sentence


# Nesting without end


def test_json_without_end_is_damage(tmp_path: Path) -> None:
    deep = "[" * 200_000 + "]" * 200_000
    (tmp_path / "metrics.jsonl").write_text(
        f'{deep}\n5\n[]\n{{"kind": "val"}}\n{{"kind": "run", "data": "images"}}\n'
    )
    assert read_records(tmp_path / "metrics.jsonl") == [{"kind": "run", "data": "images"}]
    (tmp_path / INDEX_FILE).write_text(f'{{"version": {deep}}}')
    assert "is not a usable image store" in refusal(open_store, tmp_path)
    path = tmp_path / "student.safetensors"
    card = f'{{"architecture": {{"type": "EDSR", "x": {deep}}}, "scale": 2}}'
    for text in (deep, card, "null", "[]"):
        save_file({"weight": torch.zeros(1)}, path, {METADATA_KEY: text})
        assert "damaged" in refusal(load_any, path)


# Exported networks


def _model(
    nodes: list[Any], functions: list[Any] | None = None, stored: list[Any] | None = None
) -> bytes:
    from onnx import helper

    ports = [
        [helper.make_tensor_value_info(name, 1, shape)]
        for name, shape in (("lq", ["n", 3, "h", "w"]), ("sr", ["n", 3, None, None]))
    ]
    graph = helper.make_graph(nodes, "graph", *ports, initializer=stored or [])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    model = helper.make_model(
        graph, opset_imports=imports, functions=functions or [], ir_version=10
    )
    return bytes(model.SerializeToString())


def test_onnx_files_read_no_other_files_and_run_no_code_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    import onnx
    from onnx import helper

    path = tmp_path / "net.onnx"
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(1, np.float32).tobytes())
    for location in ("secret", "../secret", str(secret), "/etc/passwd"):
        outside = onnx.TensorProto(name="factor", data_type=1, dims=[1], data_location=1)
        outside.external_data.add(key="location", value=location)
        path.write_bytes(
            _model([helper.make_node("Mul", ["lq", "factor"], ["sr"])], stored=[outside])
        )
        assert "other files" in refusal(open_network, path)
        inside = helper.make_node("Constant", [], ["factor"], value=outside)
        path.write_bytes(_model([inside, helper.make_node("Mul", ["lq", "factor"], ["sr"])]))
        assert "other files" in refusal(open_network, path)
    path.write_bytes(_model([helper.make_node("Mine", ["lq"], ["sr"], domain="mine")]))
    assert "is no ONNX file that can be run" in refusal(open_network, path)


def test_onnx_files_cannot_run_for_ever(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from onnx import TensorProto, helper, numpy_helper

    path = tmp_path / "net.onnx"
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    trips = numpy_helper.from_array(np.array(2), "trips")  # An end, for whoever runs it.
    loop = helper.make_node("Loop", ["trips", "", "lq"], ["sr"], body=body)
    path.write_bytes(_model([loop], stored=[trips]))
    assert "has a loop" in refusal(open_network, path)


def test_no_loop_hides_in_a_branch() -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra fast")
    from openvino import opset13 as ops

    from lsfd.inference.runtimes import _check_operations

    def branch(body: Any) -> Any:
        given = ops.parameter([1], openvino.Type.f32)
        return openvino.Model([body(given)], [given], "branch")

    def looping(given: Any) -> Any:
        inner = ops.parameter([1], openvino.Type.f32)
        more = ops.constant(np.array([True]))
        loop = ops.loop(ops.constant(np.array(2)), ops.constant(np.array(True)))
        loop.set_function(openvino.Model([ops.relu(inner), more], [inner], "body"))
        loop.set_special_body_ports([-1, 1])
        loop.set_merged_input(inner, given.output(0), loop.get_function().results[0].output(0))
        return loop.get_iter_value(loop.get_function().results[0].output(0), -1)

    for makes_else, refused in ((ops.relu, False), (looping, True)):
        lq, either = (
            ops.parameter([1], openvino.Type.f32),
            ops.parameter([1], openvino.Type.boolean),
        )
        choice = ops.if_op(either)
        choice.set_then_body(branch(ops.relu))
        choice.set_else_body(branch(makes_else))
        bodies = [choice.get_function(number) for number in range(2)]
        choice.set_input(lq.output(0), *[body.get_parameters()[0] for body in bodies])
        result = choice.set_output(*[body.results[0] for body in bodies])
        model = openvino.Model([result], [lq, either], "net")
        if refused:
            assert "has a loop" in refusal(_check_operations, model)
        else:
            _check_operations(model)


def test_onnx_functions_cannot_multiply(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from onnx import helper

    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    functions = []
    for number in range(8):
        twice = [("x", "t"), ("t", "y")]
        nodes = [helper.make_node(f"F{number + 1}", [a], [b], domain="mine") for a, b in twice]
        functions.append(helper.make_function("mine", f"F{number}", ["x"], ["y"], nodes, imports))
    last = [helper.make_node("Relu", ["x"], ["y"])]
    functions.append(helper.make_function("mine", "F8", ["x"], ["y"], last, imports))
    call = helper.make_node("F0", ["lq"], ["sr"], domain="mine")
    (tmp_path / "net.onnx").write_bytes(_model([call], functions))
    assert "functions of its own" in refusal(open_network, tmp_path / "net.onnx")


def test_openvino_reads_nothing_but_xml(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra fast")
    pytest.importorskip("onnx", reason="needs the extra export")
    from onnx import helper

    (tmp_path / "net.xml").write_bytes(_model([helper.make_node("Relu", ["lq"], ["sr"])]))
    (tmp_path / "net.bin").write_bytes(b"")
    assert "it is no XML" in refusal(open_network, tmp_path / "net.xml")


# Names of files


def test_outputs_stay_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    for suffix, extension in (("/../../x", None), ("\\x", None), ("\0", None), ("", "/../png")):
        sentence = refusal(plan, [tmp_path / "in"], tmp_path / "out", suffix, extension)
        assert "has no folder" in sentence or "no image format" in sentence


def test_links_among_the_inputs_lead_to_no_other_outputs(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.png").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "outside" / "b.png")
    outputs = plan([tmp_path / "in"], tmp_path / "out", "", None).outputs
    assert {path.name for path in outputs} == {"a.png"}
    assert list(outputs.values()) == [tmp_path / "out" / "a.png"]


EVIL = "a|b`[x](javascript:1)<img src=x>\\|\\input{/etc/passwd}\x1b[2J"


def test_names_in_tables_are_text(tmp_path: Path) -> None:
    cells = markdown_table(["name"], [[EVIL]]).splitlines()[2]
    # The cell's ends are the only signs that Markdown takes for more than themselves.
    assert cells.count("|") == 2 + cells.count("\\|")
    for sign in "<[":
        assert f"\\{sign}" in cells and cells.count(sign) == cells.count(f"\\{sign}")
    assert "\x1b" not in cells
    table = latex_table("x4", ["[5cm]", "*", EVIL], {"PSNR": [1.0, 2.0, 3.0]})
    assert "\\input" not in table and "\x1b" not in table
    rows = table.split("\\\\\n")
    assert not any(row.lstrip().startswith(("[", "*")) for row in rows)
    assert "\\midrule\n[" not in table


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\x1b[2J"])
def test_names_in_csv_are_no_formulas(name: str) -> None:
    from lsfd.evaluation.cost import Cost

    scores = SetScores(name, {"a": ImageScores(30.0, 0.9, 29.0, 0.8)})
    cost = Cost(1, 1, 1.0, 1)
    line = BenchmarkReport(4, (BenchmarkRow(name, cost, (scores,)),)).to_csv().splitlines()[1]
    fields = line.split(",")
    assert not any(field.lstrip('"').startswith(("=", "+", "-", "@", "\t")) for field in fields)
    assert "\x1b" not in line


# What is sealed


def test_a_student_with_a_changed_weight_or_word_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    card = StudentCard(architecture={**EDSR, "res_scale": 1.0}, scale=2)
    torch.manual_seed(0)
    save_student(path, build_network(EDSR), card)
    good = path.read_bytes()
    for old, new in (
        (good[-1:], bytes([good[-1] ^ 1])),
        (b'res_scale\\": 1.0', b'res_scale\\": 1.5'),
    ):
        assert old in good
        changed = good[:-1] + new if len(old) == 1 else good.replace(old, new)
        path.write_bytes(changed)
        for reader in (read_student, load_any, read_state_dict, open_upscaler):
            assert "digest" in refusal(reader, path)
    path.write_bytes(good)
    read_student(path)


def test_an_export_with_a_changed_weight_is_refused(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(package, reason="needs the extra export")
    from onnx import helper, load_model_from_string, numpy_helper

    factor = np.float32(1.03125)
    stored = [
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        numpy_helper.from_array(factor, "factor"),
    ]
    nodes = [
        helper.make_node("Resize", ["lq", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Mul", ["large", "factor"], ["sr"]),
    ]
    model = load_model_from_string(_model(nodes, stored=stored))
    note = ExportNote(scale=2, reach=1, multiple=1, bytes_per_pixel=1, precision="fp32")
    card = StudentCard(architecture={"type": "Nearest"}, scale=2)
    metadata = with_seal(to_metadata(card, note))
    xml, weights = to_openvino(model, metadata)
    set_metadata(model, metadata)
    (tmp_path / "net.onnx").write_bytes(sealed(model.SerializeToString()))
    (tmp_path / "net.xml").write_bytes(sealed(xml, weights))
    (tmp_path / "net.bin").write_bytes(weights)
    for name, changed in (("net.onnx", "net.onnx"), ("net.xml", "net.bin")):
        assert open_network(tmp_path / name)[1] == card
        data = (tmp_path / changed).read_bytes()
        assert factor.tobytes() in data
        (tmp_path / changed).write_bytes(data.replace(factor.tobytes(), np.float32(1).tobytes()))
        assert "digest" in refusal(open_network, tmp_path / name)


def test_lpips_of_other_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    place.parent.mkdir(parents=True)
    for content in ([1], {"features.0.weight": torch.zeros(1)}, {}, {"features.0.weight": 3}):
        torch.save(content, place)
        assert "does not hold torchvision's weights" in refusal(Lpips, "squeeze")


def test_a_student_without_a_digest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    card = StudentCard(architecture=EDSR, scale=2)
    save_file(build_network(EDSR).state_dict(), path, card.to_metadata())
    assert read_student(path)[1] == card
