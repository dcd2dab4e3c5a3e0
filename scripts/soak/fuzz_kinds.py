"""The kinds of files that ``fuzz.py`` damages: how a good one is made, and what reads it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import resource
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import torch
import yaml
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageCms
from safetensors.torch import load, save
from torch import Tensor

from lsfd.config.load import load_options
from lsfd.data.archives import extract
from lsfd.data.pack import build_store, verify_store
from lsfd.data.store import INDEX_FILE, open_store
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.imaging.picture import read_picture
from lsfd.imaging.picture_files import write_picture
from lsfd.inference.description import ExportNote, to_metadata
from lsfd.inference.edsr_graph import read_edsr
from lsfd.networks.build import build_network
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.seal import sealed, with_seal
from lsfd.networks.student_file import load_any, read_student, save_student
from lsfd.training.checkpoint import newest_readable, random_state, save_checkpoint
from lsfd.training.finished import read_runs
from lsfd.training.teacher_cache import TeacherCache

EDSR = {
    "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 6, "num_block": 2, "upscale": 2,
}  # fmt: skip
RCAN = {**EDSR, "type": "RCAN", "num_group": 2, "squeeze_factor": 2}
CARD = StudentCard(
    architecture=EDSR, scale=2, method="LSFD", note="for the fuzzer", scores={"Set5": {"psnr": 30}}
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        make: writes a good one, and what belongs to it, into a folder; returns the file.
        use: reads it as the commands do; equal files give equal results.
        checked: whether damage must not change the result unnoticed.
        absurd: replaces values in a good file's bytes, where it has fields.
    """

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], Any]
    checked: bool = True
    absurd: Callable[[bytes, Generator], bytes] | None = None


def peak_memory() -> int:
    """Return the most bytes that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def digest(values: Mapping[str, Tensor] | NDArray[Any]) -> str:
    """Return a digest of tensors by name, or of pixels."""
    if isinstance(values, np.ndarray):
        return f"{values.shape} {hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()}"
    whole = hashlib.sha256()
    for name in sorted(values):
        whole.update(f"{name} {tuple(values[name].shape)} {values[name].dtype}".encode())
        whole.update(values[name].detach().contiguous().numpy().tobytes())
    return whole.hexdigest()


# Values that nobody expects.

ABSURD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 1e308, -0.5, math.inf, math.nan, "",
    "x", "\0", "\x1b[2J", "../../x", "/etc/passwd", "=1+1", "{0.__class__}", "%s%n", "${HOME}",
    "<script>", "é" * 300, "9" * 5000, [], [1], [[[[]]]], {}, {"a": {"b": {}}},
    {"type": "os.system"}, [0] * 5000, "!!python/name:os.system", "1e-4", "null", 4096, 5000,
)  # fmt: skip


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def replace_one(data: Any, random: Generator) -> Any:
    """Replace, remove or add one value somewhere in plain data, which is changed."""
    while True:
        items = list(data) if isinstance(data, dict) else range(len(data))
        if not len(items):
            return data
        key = items[int(random.integers(len(items)))]
        child = data[key]
        if isinstance(child, dict | list) and len(child) and random.random() < 0.75:
            data = child
            continue
        choice = random.random()
        if choice < 0.1:
            del data[key]
        elif choice < 0.15 and isinstance(data, dict):
            names = [value for value in ABSURD if isinstance(value, str)]
            data[names[int(random.integers(len(names)))]] = child
        else:
            data[key] = ABSURD[int(random.integers(len(ABSURD)))]
        return data


def absurd_json(data: bytes, random: Generator) -> bytes:
    """Replace a value in JSON; now and then by one that is nested without end."""
    if random.random() < 0.1:
        return _nested(100_000).encode()
    values = json.loads(data)
    replace_one(values, random)
    return json.dumps(values).encode()


def absurd_lines(data: bytes, random: Generator) -> bytes:
    """Replace a value in one of several lines of JSON."""
    lines = data.splitlines()
    place = int(random.integers(len(lines)))
    lines[place] = absurd_json(lines[place], random)
    return b"\n".join(lines) + b"\n"


def absurd_yaml(data: bytes, random: Generator) -> bytes:
    """Replace a value in YAML, or write what YAML alone has: tags, anchors, nesting."""
    if random.random() < 0.3:
        extra = (
            b"a: &a [*a]\n", b"x: !!python/object/apply:os.system [id]\n", b"extends: .\n",
            b"extends: /dev/zero\n", b"? [1, 2]\n: 3\n", b"<<: *x\n", b"x: " + b"[" * 3000,
            b"x: '" + b"y" * 300_000 + b"'\n", b"a: &a {b: 1}\n<<: [*a, *a]\n", b"---\n",
            b"%YAML 9\n", b"name: \"\\ud800\"\n", b"name: \"\\e[2J\"\n", b"extends: a\nextends: b",
        )  # fmt: skip
        return data + extra[int(random.integers(len(extra)))]
    values = yaml.safe_load(data)
    replace_one(values, random)
    try:
        return yaml.safe_dump(values, allow_unicode=True).encode()
    except yaml.YAMLError:
        return data


def absurd_card(data: bytes, random: Generator) -> bytes:
    """Replace a value of a student's card, which gets no digest."""
    card = json.loads(CARD.to_metadata()[METADATA_KEY])
    text = absurd_json(json.dumps(card).encode(), random).decode()
    return save(load(data), {METADATA_KEY: text})


# Making and reading, kind by kind.


def _weights(options: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build_network(options).state_dict()


def make_checkpoints(folder: Path) -> Path:
    """Write two checkpoints of a run; the newer one is damaged."""
    for iteration in (10, 20):
        state = {
            "iteration": iteration,
            "model": {"student": _weights(EDSR, iteration)},
            "random": [random_state()],
            "best": [30.0, 10],
            "scores": {"Set5": {"psnr": 30.0}},
        }
        save_checkpoint(folder / f"{iteration}.state", state)
    return folder / "20.state"


def use_checkpoint(path: Path) -> str:
    """Return what a resume goes on from; the older checkpoint counts as refused."""
    state, source = newest_readable(path.parent)
    if state["iteration"] == 10 and source.name == "10.state":
        raise LsfdError("the checkpoint before it is taken")
    return f"{state['iteration']} {digest(state['model']['student'])} {state['scores']}"


def make_teacher(folder: Path) -> Path:
    """Write a teacher as torch.save does."""
    torch.save({"params_ema": _weights(RCAN)}, folder / "teacher.pth")
    return folder / "teacher.pth"


def make_old_teacher(folder: Path) -> Path:
    """Write a teacher as torch.save did before 1.6: a pickle without checksums."""
    path = folder / "teacher.ckpt"
    torch.save({"state_dict": _weights(RCAN)}, path, _use_new_zipfile_serialization=False)
    return path


def make_foreign(folder: Path) -> Path:
    """Write safetensors that say nothing about themselves, and have no digest."""
    path = folder / "foreign.safetensors"
    path.write_bytes(save(_weights(EDSR)))
    return path


def make_student(folder: Path) -> Path:
    """Write a student."""
    save_student(folder / "student.safetensors", _weights(EDSR), CARD)
    return folder / "student.safetensors"


def use_network(path: Path) -> str:
    """Return the weights of a network and what is known of it."""
    network, card = load_any(path)
    return f"{digest(network.state_dict())} {card.architecture} {card.scale}"


def use_student(path: Path) -> str:
    """Return a student as PyTorch and as OpenVINO would compute it."""
    network, card = read_student(path)
    quick = read_edsr(path)
    weights = None if quick is None else digest(dict(sorted_tensors(quick.weights)))
    return f"{digest(network.state_dict())} {weights} {card}"


def sorted_tensors(arrays: Mapping[str, NDArray[Any]]) -> list[tuple[str, Tensor]]:
    """Return arrays by name as tensors."""
    return [(name, torch.from_numpy(arrays[name])) for name in sorted(arrays)]


def _store(folder: Path) -> Path:
    images = folder / "images"
    for number in range(3):
        Image.fromarray(_pixels(48 + 2 * number, 40)).save(_parent(images / f"{number}.png"))
    build_store(folder / "store", [images], None, 2)
    return folder / "store"


def make_index(folder: Path) -> Path:
    """Pack some images; the index is damaged."""
    return _store(folder) / INDEX_FILE


def make_packed(folder: Path) -> Path:
    """Pack some images; the pixels are damaged."""
    return _store(folder) / "gt.bin"


def use_index(path: Path) -> str:
    """Return what a training takes from an index."""
    store = open_store(path.parent)
    return f"{store.names} {store.shapes} {store.scale} {store.fingerprint} {store.index.source}"


def use_packed(path: Path) -> str:
    """Return a store's fingerprint as ``lsfd prepare --check`` does, after reading all."""
    return verify_store(path.parent).fingerprint


_LQ = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
_FEATURES = {"body": torch.linspace(-1, 1, 2 * 6 * 8 * 8).view(2, 6, 8, 8)}


def _cached(folder: Path) -> tuple[Tensor, dict[str, Tensor]]:
    cache = TeacherCache(folder, {"teacher": {"network": "EDSR"}}, ["body"], 1)
    return cache(_LQ, 0, lambda lq: (lq.repeat(1, 1, 2, 2), _FEATURES))


def make_cache(folder: Path) -> Path:
    """Keep a teacher's results; its output is damaged."""
    _cached(folder)
    return next(folder.rglob("output.bin"))


def use_cache(path: Path) -> str:
    """Return the teacher's results, which are computed again if they are not believed."""
    output, features = _cached(path.parent.parent)
    return digest({"output": output, **features})


def make_options(folder: Path) -> Path:
    """Write an option file."""
    source = Path(__file__).resolve().parents[2] / "options" / "edsr_x4_lsfd.yml"
    text = source.read_text().replace("${LSFD_DATA}", "data")  # Which may not be set.
    (folder / "run.yml").write_text(text)
    return folder / "run.yml"


def use_options(path: Path) -> str:
    """Return the options as a run keeps them."""
    return load_options(path).to_yaml()


def make_override(folder: Path) -> Path:
    """Write an option file and a change of it, as ``--set`` takes it; the change is damaged."""
    make_options(folder)
    (folder / "override.txt").write_bytes(b"train.optim_g.lr=2e-4")
    return folder / "override.txt"


def use_override(path: Path) -> str:
    """Return the changed options."""
    override = path.read_bytes().decode("utf-8", "surrogateescape")
    return load_options(path.parent / "run.yml", [override]).to_yaml()


def absurd_override(data: bytes, random: Generator) -> bytes:
    """Return a change of any option to any value."""
    keys = ("train.optim_g.type", "network_g.type", "name", "scale", "a.b.c", "distillers.0.type",
            "train:total_iter", "path.resume_state", ".".join("x" * 3000), "datasets.val.name",
            "__class__", "manual_seed", "network_g.__init__", "distillers.99.type")  # fmt: skip
    key = keys[int(random.integers(len(keys)))]
    value = ABSURD[int(random.integers(len(ABSURD)))]
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}".encode()


def make_records(folder: Path) -> Path:
    """Write the folder of a run; what it measured is damaged."""
    option_file = make_options(folder)
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "options.yml").write_text(load_options(option_file).to_yaml())
    lines: list[dict[str, Any]] = [{"kind": "run", "seed": 0, "data": "590 images"}]
    for iteration in range(100, 1000, 100):
        lines.append({"kind": "train", "iteration": iteration, "losses": {"l_pix": 1 / iteration},
                      "lr": 1e-4, "seconds_per_iteration": 0.1, "skipped": 0})  # fmt: skip
        lines.append(
            {"kind": "val", "iteration": iteration, "set": "Set5", "scores": {"psnr": 30.0}}
        )
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run / "metrics.jsonl"


def use_records(path: Path) -> str:
    """Return what a report takes from a run."""
    run = read_runs([path.parent])[0]
    return f"{run.losses} {run.scores} {run.facts}"


def _pixels(height: int = 40, width: int = 56, bands: int = 3) -> NDArray[np.uint8]:
    rows, columns = np.indices((height, width))
    waves = [128 + 100 * np.sin(rows / (5 + band) + columns / 7) for band in range(bands)]
    return np.stack(waves, axis=2).astype(np.uint8)


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def make_image(name: str) -> Callable[[Path], Path]:
    """Return what writes an image with all that can be beside its pixels."""

    def make(folder: Path) -> Path:
        path = folder / f"image.{name.split('-')[-1]}"
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 1, "what it shows"
        image = Image.fromarray(_pixels())
        if name.startswith("rgba"):
            image = Image.fromarray(_pixels(bands=4), "RGBA")
        elif name.startswith("palette"):
            image = image.quantize(16)
        elif name.startswith("deep"):
            image = Image.fromarray(_pixels()[:, :, 0].astype(np.uint16) * 257)
        extra: dict[str, Any] = {}
        if path.suffix in (".png", ".jpg", ".webp", ".tif"):
            extra = {"icc_profile": profile, "exif": exif.tobytes(), "dpi": (300, 300)}
        if path.suffix == ".webp":
            extra["lossless"] = True
        if path.suffix == ".tif":
            extra |= {"compression": "tiff_deflate", "exif": exif}
        image.save(path, **extra)
        return path

    return make


def use_image(path: Path) -> str:
    """Return an image's pixels as upscaling and as training read them; it is written again, too."""
    picture = read_picture(path)
    height, width, _ = picture.raster.shape
    if max(height, width) > 4000:
        raise LsfdError("larger than a damaged file of this size may be")  # Counted as refused.
    pixels = digest(picture.raster.read(0, height, 0, width))
    for ending in (".png", ".bmp", ".tif"):
        write_picture(path.parent / f"again{ending}", picture)
    try:
        trained = digest(read_image(path))
    except LsfdError:
        if path.suffix in (".gif",):  # Not for training.
            return pixels
        raise
    return f"{pixels} {trained}"


FILES = {"HR/1.bin": b"first" * 500, "HR/2.bin": bytes(range(256)) * 8, "LR/1.bin": b"small"}


def make_zip(folder: Path) -> Path:
    """Write a zip archive."""
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return folder / "set.zip"


def make_tar(folder: Path) -> Path:
    """Write a gzipped tar archive."""
    with tarfile.open(folder / "set.tar.gz", "w:gz") as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return folder / "set.tar.gz"


def use_archive(path: Path) -> str:
    """Return what comes out of an archive."""
    out = path.parent / "out"
    extract(path, out)
    files = sorted(file for file in out.rglob("*") if file.is_file())
    return str([(file.relative_to(out).as_posix(), digest_of(file)) for file in files])


def digest_of(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


NOTE = ExportNote(scale=2, reach=1, multiple=1, bytes_per_pixel=1000, precision="fp32")


def _onnx_model() -> Any:
    from onnx import helper, numpy_helper

    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    stored = [
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        numpy_helper.from_array(kernel, "kernel"),
    ]
    nodes = [
        helper.make_node("Conv", ["lq", "kernel"], ["same"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["same", "", "scales"], ["sr"], mode="nearest"),
    ]
    lq = helper.make_tensor_value_info("lq", 1, ["n", 3, "h", "w"])
    sr = helper.make_tensor_value_info("sr", 1, ["n", 3, None, None])
    graph = helper.make_graph(nodes, "nearest", [lq], [sr], initializer=stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def make_onnx(folder: Path) -> Path:
    """Write an ONNX file as ``lsfd export`` does."""
    from lsfd.inference.onnx import set_metadata

    model = _onnx_model()
    set_metadata(model, with_seal(to_metadata(CARD, NOTE)))
    (folder / "student.onnx").write_bytes(sealed(model.SerializeToString()))
    return folder / "student.onnx"


def make_foreign_onnx(folder: Path) -> Path:
    """Write an ONNX file as others do: it says nothing about itself."""
    (folder / "foreign.onnx").write_bytes(_onnx_model().SerializeToString())
    return folder / "foreign.onnx"


def make_openvino(folder: Path) -> Path:
    """Write OpenVINO's two files as ``lsfd export`` does; the first is damaged."""
    from lsfd.inference.openvino import to_openvino

    xml, weights = to_openvino(_onnx_model(), with_seal(to_metadata(CARD, NOTE)))
    (folder / "student.xml").write_bytes(sealed(xml, weights))
    (folder / "student.bin").write_bytes(weights)
    return folder / "student.xml"


def make_openvino_weights(folder: Path) -> Path:
    """Write OpenVINO's two files; the second is damaged."""
    return make_openvino(folder).with_suffix(".bin")


def use_runtime(path: Path) -> str:
    """Return what an exported network makes of an image."""
    from lsfd.inference.networks import open_network

    path = path.with_suffix(".xml") if path.suffix == ".bin" else path
    network, card = open_network(path)
    with torch.no_grad():
        result = network(torch.linspace(0, 1, 3 * 12 * 12).view(1, 3, 12, 12))
    if not torch.isfinite(result).all():  # The upscaler says so.
        raise LsfdError("the network's output holds NaN or infinity")
    return f"{digest({'sr': result})} {card}"


def _all_kinds() -> list[Kind]:
    images = ("png", "rgba-png", "palette-png", "deep-png")
    plain_images = ("jpg", "tif", "webp", "bmp", "gif")
    kinds = [
        Kind("checkpoint", make_checkpoints, use_checkpoint),
        Kind("teacher", make_teacher, use_network),
        Kind("teacher before torch 1.6", make_old_teacher, use_network, checked=False),
        Kind("foreign safetensors", make_foreign, use_network, checked=False),
        Kind("student", make_student, use_student),
        Kind("student's card", make_student, use_student, checked=False, absurd=absurd_card),
        Kind("store's index", make_index, use_index),
        Kind("store's index, absurd", make_index, use_index, checked=False, absurd=absurd_json),
        Kind("store's pixels", make_packed, use_packed),
        Kind("teacher cache", make_cache, use_cache),
        Kind("options", make_options, use_options, checked=False, absurd=absurd_yaml),
        Kind("--set", make_override, use_override, checked=False, absurd=absurd_override),
        Kind("records", make_records, use_records, checked=False, absurd=absurd_lines),
        *(Kind(name, make_image(name), use_image) for name in images),
        *(Kind(name, make_image(name), use_image, checked=False) for name in plain_images),
        # A zip's directory has no checksum: downloads are compared with their SHA-256 before.
        Kind("zip", make_zip, use_archive, checked=False),
        Kind("tar.gz", make_tar, use_archive),
    ]
    if _has("onnx", "onnxruntime"):
        kinds.append(Kind("onnx", make_onnx, use_runtime))
        kinds.append(Kind("foreign onnx", make_foreign_onnx, use_runtime, checked=False))
    if _has("onnx", "onnxscript", "openvino"):
        kinds.append(Kind("openvino", make_openvino, use_runtime))
        kinds.append(Kind("openvino's weights", make_openvino_weights, use_runtime))
    return kinds


def _has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


warnings.filterwarnings("ignore")
KINDS = _all_kinds()
