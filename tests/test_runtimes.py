"""Exported files as networks: what they say, whose they are, what is wrong with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsfd.errors import LsfdError
from lsfd.inference.description import EXPORT_KEY, ExportNote, from_metadata, to_metadata
from lsfd.inference.footprint import bytes_per_pixel
from lsfd.inference.networks import open_network
from lsfd.inference.onnx import onnx_model, set_metadata
from lsfd.inference.openvino import to_openvino
from lsfd.inference.runtimes import RuntimeNetwork, from_onnx, open_onnx, open_openvino
from lsfd.inference.signal_stack import signal_stack
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.reach import reach
from lsfd.networks.trial import size_multiple

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"needs the extra export: no {package}")

CARD = StudentCard(architecture={"type": "Nearest"}, scale=2, method="by hand", note='"ü" <&>')
NOTE = ExportNote(scale=2, reach=5, multiple=4, bytes_per_pixel=1000, precision="fp32")
DESCRIBED = to_metadata(CARD, NOTE)


def onnx_file(
    path: Path,
    metadata: dict[str, str] | None = None,
    factor: float = 1.0,
    shape: Sequence[int | str] = ("n", 3, "h", "w"),
    kind: int = 1,
) -> Path:
    """Write a network that repeats pixels in both directions and multiplies them."""
    import onnx
    from onnx import helper, numpy_helper

    dtype = helper.tensor_dtype_to_np_dtype(kind)
    stored = [
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        numpy_helper.from_array(np.array(factor, dtype), "factor"),
    ]
    nodes = [
        helper.make_node("Resize", ["lq", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Mul", ["large", "factor"], ["sr"]),
    ]
    ports = [
        [helper.make_tensor_value_info("lq", kind, shape)],
        [helper.make_tensor_value_info("sr", kind, [shape[0], shape[1], None, None])],
    ]
    graph = helper.make_graph(nodes, "network", *ports, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    set_metadata(model, metadata or {})
    onnx.save(model, path)
    return path


def openvino_file(path: Path, metadata: dict[str, str] | None = None, factor: float = 1) -> Path:
    import onnx

    source = onnx_file(path.with_suffix(".onnx"), None, factor)
    xml, weights = to_openvino(onnx.load(source), metadata or {})
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)
    return path


WRITERS = {".onnx": onnx_file, ".xml": openvino_file}
both = pytest.mark.parametrize("suffix", WRITERS)


def refused(path: Path, *words: str) -> None:
    """Assert that a file is refused in one sentence that begins with its name."""
    with pytest.raises(LsfdError) as error:
        open_network(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    assert all(word in text for word in words), text


def doubled(image: Any) -> Any:
    return image.repeat(2, 0).repeat(2, 1)


# What files say


@both
def test_a_file_describes_itself(suffix: str, tmp_path: Path) -> None:
    network, card = open_network(WRITERS[suffix](tmp_path / f"file{suffix}", DESCRIBED))
    assert card == CARD
    assert (reach(network), size_multiple(network), bytes_per_pixel(network)) == (5, 4, 1000)
    image = np.random.default_rng(0).integers(0, 256, (13, 18, 3), np.uint8)
    upscaler = Upscaler(network, card.scale, "cpu")
    assert upscaler.multiple == 4
    np.testing.assert_array_equal(upscaler(image), doubled(image))


@both
def test_a_stranger_s_file_shows_its_scale_by_a_trial(suffix: str, tmp_path: Path) -> None:
    network, card = open_network(WRITERS[suffix](tmp_path / f"file{suffix}"))
    assert card.scale == 2
    assert reach(network) is None and bytes_per_pixel(network) >= 1000
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for tile in (None, 4):
        np.testing.assert_array_equal(Upscaler(network, 2, "cpu", tile=tile)(image), doubled(image))


def test_descriptions_survive_the_way_through_a_file() -> None:
    assert from_metadata(DESCRIBED) == (CARD, NOTE)
    assert from_metadata({}) is None
    endless = NOTE.model_copy(update={"reach": None})
    assert from_metadata(to_metadata(CARD, endless)) == (CARD, endless)
    kept = json.loads(DESCRIBED[EXPORT_KEY])
    assert kept["input"] == "lq: float32, N x 3 x h x w, RGB, 0..1"


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", 0), ("scale", 4), ("reach", -1), ("multiple", 10**6), ("bytes_per_pixel", "many"),
     ("precision", "fp8")],
)  # fmt: skip
@both
def test_a_damaged_description_is_refused(
    suffix: str, field: str, value: object, tmp_path: Path
) -> None:
    changed = json.dumps({**json.loads(DESCRIBED[EXPORT_KEY]), field: value})
    path = WRITERS[suffix](tmp_path / f"file{suffix}", {**DESCRIBED, EXPORT_KEY: changed})
    refused(path, "enlarges" if value == 4 else field)
    path = WRITERS[suffix](path, {**DESCRIBED, METADATA_KEY: "{"})
    refused(path, "description is damaged")


# What is no network for images


@both
def test_another_range_is_noticed(suffix: str, tmp_path: Path) -> None:
    for factor in (0.0, 255.0, float("nan")):
        path = WRITERS[suffix](tmp_path / f"file{suffix}", None, factor)
        refused(path, "its range is not 0..1")


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((1, 3, 16, 16), 1, "fails on an input of 1x3x24x24"),
        (("n", 1, "h", "w"), 1, "fails on an input of 1x3x24x24"),
        (("n", 3, "h", "w"), 10, "is no super-resolution network"),
    ],
)
def test_other_networks_are_refused(
    shape: Sequence[int | str], kind: int, words: str, tmp_path: Path
) -> None:
    refused(onnx_file(tmp_path / "file.onnx", shape=shape, kind=kind), words)


def test_one_image_in_and_one_out(tmp_path: Path) -> None:
    import onnx

    path = onnx_file(tmp_path / "file.onnx")
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("large", 1, None))
    onnx.save(model, path)
    refused(path, "is no super-resolution network")


# What is damaged or hostile


@both
def test_damaged_files_are_refused_in_one_sentence(suffix: str, tmp_path: Path) -> None:
    path = WRITERS[suffix](tmp_path / f"file{suffix}", DESCRIBED)
    whole = path.read_bytes()
    random = np.random.default_rng(0).bytes(1000)
    for damaged in (b"", b"no network", random, whole[: len(whole) // 2], whole[:-40]):
        path.write_bytes(damaged)
        refused(path)
    path.unlink()
    refused(path, "no such file")
    path.mkdir()
    refused(path)


def test_openvino_s_weights_belong_beside(tmp_path: Path) -> None:
    path = openvino_file(tmp_path / "file.xml", DESCRIBED)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:3])
    refused(path)
    weights.unlink()
    refused(path, "file.bin", "do not lie beside it")


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    import onnx

    secret = tmp_path / "secret"
    secret.write_bytes(np.array(1, np.float32).tobytes())
    path = onnx_file(tmp_path / "file.onnx", DESCRIBED)
    model = onnx.load(path)
    inside = model.graph.initializer[1]
    inside.ClearField("raw_data")
    inside.data_location = onnx.TensorProto.EXTERNAL
    inside.external_data.add(key="location", value="secret")
    path.write_bytes(model.SerializeToString())
    refused(path, "keeps weights in other files")
    # The same in an attribute, where ONNX's own reader looks as well.
    node = onnx.helper.make_node("Constant", [], ["factor"], value=inside)
    model.graph.node.insert(0, node)
    del model.graph.initializer[1]
    path.write_bytes(model.SerializeToString())
    refused(path, "keeps weights in other files")


def test_programs_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    refused(path, "TorchScript program")


# How they run


def test_several_threads_may_call(tmp_path: Path) -> None:
    images = [torch.full((1, 3, 4, side), side / 10) for side in range(1, 9)]
    for suffix, write in WRITERS.items():
        network, _ = open_network(write(tmp_path / f"file{suffix}", DESCRIBED))
        with ThreadPoolExecutor(4) as pool:
            for image, result in zip(images, pool.map(network, images), strict=True):
                assert torch.equal(result, image.repeat(1, 1, 2, 2))


@both
def test_signals_can_be_handled_afterwards(suffix: str, tmp_path: Path) -> None:
    before = signal_stack()
    network, _ = open_network(WRITERS[suffix](tmp_path / f"file{suffix}", DESCRIBED))
    network(torch.ones(1, 3, 4, 4))
    assert signal_stack() == before


def test_too_little_memory_makes_tiles_smaller() -> None:
    sizes = []

    def run(images: Any) -> Any:
        sizes.append(images.shape[2])
        if images.shape[2] > 8:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return images.repeat(2, 2).repeat(2, 3)

    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    network = RuntimeNetwork(run, "file", reach=0)
    np.testing.assert_array_equal(Upscaler(network, 2, "cpu")(image), doubled(image))
    assert sizes[0] == 16 and sizes[-1] == 8


def test_what_a_runtime_cannot_compute_is_one_sentence() -> None:
    def run(images: Any) -> Any:
        raise RuntimeError("no\nsuch\nshape")

    with pytest.raises(LsfdError, match=r"^file: fails on an input of 1x3x2x5: no such shape$"):
        RuntimeNetwork(run, "file")(torch.zeros(1, 3, 2, 5))


# What is not installed


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("onnxruntime", "pip install onnx onnxruntime onnxscript$"),
        ("onnx", "pip install onnx onnxruntime onnxscript$"),
        ("openvino", "pip install onnx onnxruntime onnxscript openvino$"),
    ],
)
def test_missing_packages_are_named(
    missing: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino_file(tmp_path / "file.xml")
    monkeypatch.setitem(sys.modules, missing, None)
    read = open_openvino if missing == "openvino" else open_onnx
    with pytest.raises(LsfdError, match=advice):
        read(tmp_path / ("file.xml" if missing == "openvino" else "file.onnx"))


def test_the_exporter_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(LsfdError, match=r"pip install onnx onnxruntime onnxscript$"):
        onnx_model(torch.nn.Identity())


def test_a_runtime_s_own_errors_stay_off_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = onnx_file(tmp_path / "file.onnx", DESCRIBED, shape=("n", 3, 16, 16))
    network, _ = from_onnx(path.read_bytes(), str(path))
    with pytest.raises(LsfdError, match="fails on an input"):
        network(torch.zeros(1, 3, 8, 8))
    assert capfd.readouterr() == ("", "")
