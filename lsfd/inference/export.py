"""Writing a network in a format that other programs run, and checking that they will."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lsfd.atomic import scratch_folder, writing
from lsfd.data.embedded import EMBEDDED_VAL, embedded_files
from lsfd.errors import LsfdError, nearest
from lsfd.imaging.files import read_image
from lsfd.inference.description import ExportNote, Precision, to_metadata
from lsfd.inference.int8 import quantized
from lsfd.inference.integer_layers import has_integers
from lsfd.inference.networks import open_network
from lsfd.inference.onnx import onnx_model, set_metadata
from lsfd.inference.openvino import to_openvino
from lsfd.inference.photographs import Pair, photograph_pairs
from lsfd.inference.planes import to_planes
from lsfd.inference.runtimes import (
    ONNX_SUFFIX,
    OPENVINO_SUFFIX,
    WEIGHTS_SUFFIX,
    from_onnx,
    from_openvino,
)
from lsfd.inference.torchscript import to_torchscript
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.image import mean_score, psnr
from lsfd.networks.card import StudentCard
from lsfd.networks.foreign import SPANDREL
from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.seal import sealed, with_seal
from lsfd.networks.student_file import SUFFIX, read_student, save_student
from lsfd.networks.trial import evaluating

Format = Literal["onnx", "torchscript", "openvino", "safetensors"]

SUFFIXES: dict[Format, str] = {
    "onnx": ONNX_SUFFIX,
    "torchscript": ".pt",
    "openvino": OPENVINO_SUFFIX,
    "safetensors": SUFFIX,
}
"""How the names of the files end."""

IN_INTEGERS: tuple[Format, ...] = ("onnx", "openvino")

LIMITS: dict[Precision, float] = {"fp32": 0.01, "fp16": 1.0}
"""Grey levels by which a result may differ from PyTorch's; integers are scored instead."""

_TRIED = ((1, 17, 23), (2, 33, 20))
"""Images, height and width of what is compared: odd sizes, and more than one image."""

_FIXED = "exporting fixes what a network decides by the size of its input, as SwinIR does"

_NOTABLE_LOSS = 0.1
"""In dB."""

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the file.
        format: of it.
        precision: that it computes in.
        bytes: its size, with what belongs to it.
        difference: largest difference from PyTorch's result, in grey levels, 0 to 255.
        photographs: how many were scored; 0 unless it computes in integers.
        before: their mean PSNR-Y in PyTorch, in dB.
        after: that of the file, in dB.
    """

    path: Path
    format: Format
    precision: Precision
    bytes: int
    difference: float
    photographs: int = 0
    before: float = 0.0
    after: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.format}, {self.precision}, {self.bytes / 2**20:.2f} MiB, for any "
            "number of images of any size",
            f"differs from PyTorch by at most {self.difference:.2g} of 255 grey levels",
        ]
        if self.photographs:
            lines.append(
                f"PSNR-Y of {self.photographs} photographs: {self.before:.3f} dB before, "
                f"{self.after:.3f} dB after"
            )
            if self.before - self.after >= _NOTABLE_LOSS:
                lines.append(
                    "the loss is large: export without --int8, or fine-tune what 'lsfd quantize' "
                    "gives"
                )
        return "\n".join(lines)


def export(
    weights: str | Path,
    out: Path,
    format: str | None = None,
    precision: str = "fp32",
    images: Path | None = None,
) -> ExportReport:
    """Write a network as ONNX, OpenVINO, TorchScript or safetensors, for images of any size.

    What was made is run and compared with PyTorch before it gets its name. A network that is
    quantised already is written in its own integers as ONNX and OpenVINO, whatever the precision.

    Args:
        weights: see :func:`lsfd.inference.networks.open_network`.
        out: the file; of OpenVINO's two, the ``.xml``.
        format: one of ``SUFFIXES``; None: by the name of ``out``.
        precision: ``fp32``; ``fp16``: weights in half precision, and in ONNX what is computed,
            too; ``int8``: convolutions in integers, ONNX and OpenVINO only.
        images: for integers, a folder of photographs in high resolution: every second one
            calibrates, the others are scored; None: the photographs that scikit-image ships.

    Raises:
        LsfdError: the network cannot be read or exported in this way, a package is missing, the
            result differs from PyTorch's, or it cannot be written.
    """
    chosen = _format(out, format)
    network, card = open_network(weights)
    if isinstance(network, OpaqueNetwork):
        raise LsfdError(f"{weights}: is exported already; give the file that it was made from")
    reached = _precision(network, chosen, precision)
    if images is not None and reached != "int8":
        raise LsfdError("--images: they are for integers; add --int8, or leave them out")
    note = ExportNote.of(network, card.scale, reached)
    calibrating: list[Pair] = []
    scored: list[Pair] = []
    if reached == "int8":
        calibrating, scored = photograph_pairs(images, card.scale, note.multiple)
    source = _Source(network, card, note, out)
    made = _make(source, chosen, calibrating)
    difference = _difference(source, made.network)
    _check(difference, reached, out)
    before, after = (_psnr(each, card.scale, scored) for each in (network, made.network))
    _write({out.with_suffix(suffix): data for suffix, data in made.files.items()})
    size = sum(map(len, made.files.values()))
    return ExportReport(out, chosen, reached, size, difference, len(scored), before, after)


@dataclass(frozen=True)
class _Source:
    """What is exported, and where to."""

    network: nn.Module
    card: StudentCard
    note: ExportNote
    out: Path


@dataclass(frozen=True)
class _Made:
    """An export that is not written yet: files by suffix, the named one first, and what runs it."""

    files: Mapping[str, bytes]
    network: nn.Module


def _format(out: Path, format: str | None) -> Format:
    """Return the format that is meant."""
    if format is not None:
        known = _one_of("format", format, get_args(Format))
        if out.suffix != SUFFIXES[known]:
            raise LsfdError(f"{out}: the name of a file of {known} ends in {SUFFIXES[known]}")
        return known
    for known, suffix in SUFFIXES.items():
        if out.suffix == suffix:
            return known
    raise LsfdError(f"{out}: no format ends in '{out.suffix}'{nearest('', SUFFIXES.values())}")


def _precision(network: nn.Module, format: Format, precision: str) -> Precision:
    """Return what the file will compute in."""
    known = _one_of("precision", precision, get_args(Precision))
    if format in IN_INTEGERS and has_integers(network):
        if known == "fp16":
            raise LsfdError("this network is quantised to integers; export it without --half")
        return "int8"
    if known == "int8" and format not in IN_INTEGERS:
        raise LsfdError(
            f"integers are for {' and '.join(IN_INTEGERS)}, not for {format}; 'lsfd quantize' "
            "writes a .safetensors file that can be trained on"
        )
    if known == "fp16" and format == "torchscript":
        raise LsfdError(
            "TorchScript is written in float32: half precision is slow on CPUs, and on a GPU the "
            "loaded program becomes it with .half(); export without --half"
        )
    return known


def _one_of(what: str, given: str, names: tuple[Name, ...]) -> Name:
    """Return a name as one of those that there are."""
    for name in names:
        if name == given:
            return name
    raise LsfdError(f"{what} '{given}' is unknown{nearest(given, names)}")


def _make(source: _Source, format: Format, calibrating: Sequence[Pair]) -> _Made:
    """Export to memory."""
    metadata = to_metadata(source.card, source.note)
    if format == "safetensors":
        return _as_safetensors(source)
    if format == "torchscript":
        program, network = to_torchscript(source.network, metadata)
        return _Made({SUFFIXES[format]: program}, network)
    half = source.note.precision == "fp16"
    metadata = with_seal(metadata)
    model = onnx_model(source.network, half=half and format == "onnx")
    if calibrating and not has_integers(source.network):
        model = quantized(model, [_planes(pair.lr).numpy() for pair in calibrating])
    where = str(source.out)
    if format == "openvino":
        xml, weights = to_openvino(model, metadata, half=half)
        xml = sealed(xml, weights)
        network, _ = from_openvino(xml, weights, where)
        return _Made({OPENVINO_SUFFIX: xml, WEIGHTS_SUFFIX: weights}, network)
    set_metadata(model, metadata)
    data = sealed(model.SerializeToString())
    network, _ = from_onnx(data, where)
    return _Made({ONNX_SUFFIX: data}, network)


def _as_safetensors(source: _Source) -> _Made:
    dtype = torch.float16 if source.note.precision == "fp16" else torch.float32
    if source.card.architecture.get("type") == SPANDREL:
        raise LsfdError(
            f"{source.out}: student files hold networks of BasicSR and lsfd alone, and this one is "
            "spandrel's; export it to another format"
        )
    with scratch_folder() as folder:
        path = folder / source.out.name
        try:
            save_student(path, source.network, source.card, dtype)
            return _Made({SUFFIX: path.read_bytes()}, read_student(path)[0])
        except LsfdError as error:
            raise LsfdError(str(error).replace(str(path), str(source.out))) from error


def _difference(source: _Source, exported: nn.Module) -> float:
    """Return the largest difference from PyTorch on some images, in grey levels."""
    photograph = read_image(embedded_files(EMBEDDED_VAL)[0])
    largest = torch.zeros(())
    for count, *sides in _TRIED:
        height, width = (-(-side // source.note.multiple) * source.note.multiple for side in sides)
        images = [photograph[top : top + height, :width] for top in range(count)]
        lq = torch.cat([_planes(image) for image in images])
        with evaluating(source.network):
            expected = source.network(lq.clone())
        try:
            with torch.no_grad():
                differences = (exported(lq) - expected).abs().float()
        except Exception as error:  # TorchScript's are of torch, the runtimes' are of lsfd.
            reason = " ".join(str(error).split())[-200:]
            raise LsfdError(
                f"{source.out}: not written: it fails on an input of {count}x3x{height}x{width}; "
                f"{_FIXED} ({reason})"
            ) from error
        largest = torch.maximum(largest, differences.max())
    return float(largest) * 255


def _check(difference: float, precision: Precision, out: Path) -> None:
    limit = LIMITS.get(precision, math.inf)
    if not difference <= limit:  # It may be no number.
        advice = "export it without --half" if precision == "fp16" else _FIXED
        raise LsfdError(
            f"{out}: not written: its result differs from PyTorch's by {difference:.3g} grey "
            f"levels, and {precision} may differ by {limit:g}; {advice}"
        )


def _psnr(network: nn.Module, scale: int, pairs: Sequence[Pair]) -> float:
    """Return the mean PSNR-Y on photographs, in dB; 0 without any."""
    if not pairs:
        return 0.0
    upscaler = Upscaler(network, scale, "cpu")
    return mean_score(psnr(upscaler(pair.lr), pair.hr, scale) for pair in pairs)[0]


def _planes(image: NDArray[np.uint8]) -> Tensor:
    return to_planes(image, torch.device("cpu"))


def _write(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together; the first is the one that is named."""
    with ExitStack() as stack:
        for path, data in files.items():
            stack.enter_context(writing(path)).write(data)
        # They get their names last to first: the first never stands beside what is not its own.
        if len(files) > 1:
            next(iter(files)).unlink(missing_ok=True)
