"""Opening whatever file holds a network, or a ready student by its name."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lsfd.inference.runtimes import ONNX_SUFFIX, OPENVINO_SUFFIX, open_onnx, open_openvino
from lsfd.networks.card import StudentCard
from lsfd.networks.ready import find_weights
from lsfd.networks.student_file import load_any


def open_network(weights: str | Path) -> tuple[nn.Module, StudentCard]:
    """Return a network, on the CPU and in eval mode, and what its file says about itself.

    An exported network is run by its runtime, on the CPU.

    Args:
        weights: ``.safetensors``, ONNX (``.onnx``), OpenVINO (``.xml`` with its ``.bin``), another
            project's checkpoint, or the name of a ready student.

    Raises:
        LsfdError: there is no such file or name, or it cannot be read.
    """
    path = find_weights(weights)
    if path.suffix.lower() == ONNX_SUFFIX:
        return open_onnx(path)
    if path.suffix.lower() == OPENVINO_SUFFIX:
        return open_openvino(path)
    return load_any(path)
