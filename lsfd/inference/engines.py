"""Choosing what computes a network: OpenVINO on CPUs where it can, PyTorch otherwise.

What is chosen follows from the network, the device and what is installed alone, not from how much
there is to do: the same file and the same command give the same result.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from lsfd.errors import LsfdError, nearest
from lsfd.inference.edsr_graph import EdsrFile, edsr_graph, read_edsr
from lsfd.inference.packages import needing
from lsfd.networks.card import StudentCard
from lsfd.networks.ready import find_weights

if TYPE_CHECKING:
    from torch import nn

    from lsfd.inference.openvino_upscaler import OpenVinoUpscaler
    from lsfd.inference.upscaler import Upscaler

AnyUpscaler: TypeAlias = "OpenVinoUpscaler | Upscaler"

Engine = Literal["auto", "openvino", "torch"]

_CPU_PRECISIONS = ("auto", "fp32", "bf16")


def open_upscaler(
    weights: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    ensemble: bool = False,
    mix: Mapping[str, float] | None = None,
    engine: str = "auto",
) -> tuple[AnyUpscaler, StudentCard]:
    """Return a network that is ready to enlarge images, and what its file says about itself.

    PyTorch, which takes a second to import, is left alone where OpenVINO does without it: a
    student of EDSR's family, on a machine without a GPU.

    Args:
        weights: see :func:`lsfd.inference.networks.open_network`.
        device: see :func:`lsfd.inference.device.pick_device`.
        precision: see :func:`lsfd.inference.device.autocast_dtype`; ``auto`` is ``fp32`` for
            16-bit images.
        tile: side of a tile in input pixels; None: as large as fits into the memory.
        ensemble: whether to take the mean over the image mirrored and turned in eight ways.
        mix: share of each objective, for a student that SGN trained.
        engine: ``torch``; ``openvino``: on the CPU; ``auto``: OpenVINO where it is installed, the
            device is the CPU and the network can be converted.

    Raises:
        LsfdError: no such file or name, it cannot be read, an argument is wrong, or ``openvino``
            is asked for and cannot be had.
    """
    if engine not in get_args(Engine):
        raise LsfdError(f"engine '{engine}' is unknown{nearest(engine, get_args(Engine))}")
    path = find_weights(weights)
    on_cpu = device == "cpu" or (device == "auto" and not _has_gpu())
    settings: dict[str, Any] = {"precision": precision, "tile": tile, "ensemble": ensemble}
    if engine == "openvino":
        _check_openvino(on_cpu, precision)
    if engine == "torch" or not on_cpu or precision not in _CPU_PRECISIONS or not _has_openvino():
        network, card = _open(path, mix)
        return _on_torch(network, card, device, settings), card
    student = read_edsr(path) if mix is None else None
    if student is not None:
        return _edsr(student, settings), student.card
    network, card = _open(path, mix)
    try:
        return _on_openvino(network, card, settings), card
    except LsfdError:
        if engine == "openvino":
            raise
        return _on_torch(network, card, "cpu", settings), card


def _open(path: Path, mix: Mapping[str, float] | None) -> tuple[nn.Module, StudentCard]:
    from lsfd.inference.mixture import choose_mixture
    from lsfd.inference.networks import open_network

    network, card = open_network(path)
    if mix is not None:
        choose_mixture(network, mix)
    return network, card


def _on_torch(
    network: nn.Module, card: StudentCard, device: str, settings: Mapping[str, Any]
) -> Upscaler:
    from lsfd.inference.upscaler import Upscaler

    return Upscaler(network, card.scale, device, **settings)


def _edsr(student: EdsrFile, settings: Mapping[str, Any]) -> OpenVinoUpscaler:
    from lsfd.inference.openvino_upscaler import OpenVinoUpscaler

    graph, scale, sees = edsr_graph(student), student.card.scale, student.reach
    return OpenVinoUpscaler(graph, scale, lambda: sees, **settings)


def _on_openvino(
    network: nn.Module, card: StudentCard, settings: Mapping[str, Any]
) -> OpenVinoUpscaler:
    from lsfd.inference.openvino_upscaler import OpenVinoUpscaler
    from lsfd.inference.torch_graph import torch_graph
    from lsfd.networks.reach import reach

    graph, scale = torch_graph(network), card.scale
    return OpenVinoUpscaler(graph, scale, lambda: reach(network), **settings)


def _check_openvino(on_cpu: bool, precision: str) -> None:
    """Raise an error if OpenVINO, which is asked for, cannot be had."""
    with needing("openvino"):
        import openvino  # noqa: F401
    if not on_cpu:
        raise LsfdError("engine 'openvino' computes on the CPU; add --device cpu, or leave it out")
    if precision not in _CPU_PRECISIONS:
        hint = nearest(precision, _CPU_PRECISIONS)
        raise LsfdError(f"engine 'openvino' has no precision '{precision}'{hint}")


def _has_openvino() -> bool:
    if find_spec("openvino") is None:
        return False
    try:
        import openvino.opset13  # noqa: F401
    except ImportError:  # A system library is missing, or the like.
        return False
    return True


def _has_gpu() -> bool:
    """Whether PyTorch sees a GPU; it is asked only where a driver is installed."""
    if "torch" not in sys.modules and not _has_driver():
        return False
    from lsfd.inference.device import pick_device

    return pick_device("auto").type != "cpu"


def _has_driver() -> bool:
    """Whether there is a driver for GPUs that PyTorch calls ``cuda``: NVIDIA's or AMD's."""
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
