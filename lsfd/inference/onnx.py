"""Networks as ONNX files, quantised ones in real 8-bit integers, run by ONNX Runtime.

A quantised network's convolutions become ``DequantizeLinear -> Conv -> QuantizeLinear`` with the
scales that were learned and weights stored as int8: what ONNX Runtime turns into integer kernels.
Activations of either sign are uint8 around 128, those after a ReLU uint8 from 0; biases are int32.

ONNX Runtime rounds the sums of a convolution once, the network in training after every operation:
now and then a value falls on the neighbouring level. On x86 processors without VNNI instructions
its kernels add up pairs of products in 16 bits, which can overflow: results are worse there.

Needs the extra ``onnx`` (``pip install lsfd[onnx]``).
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lsfd.atomic import write_bytes
from lsfd.errors import LsfdError
from lsfd.networks.quantization import LearnedRange, QuantizedConv2d
from lsfd.networks.trial import trial_input

SUFFIX = ".onnx"
BITS = 8
_INPUT, _OUTPUT = "lq", "sr"


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write a network as an ONNX file for images of any size.

    Its input ``lq`` is 1 x 3 x h x w, its output ``sr`` 1 x 3 x sh x sw; float32, RGB in 0..1.

    Args:
        network: on the CPU; a quantised one has 8 bits.
        path: ends in ``.onnx``.

    Raises:
        LsfdError: the extra is not installed, the network cannot be exported, or the file cannot
            be written.
    """
    if path.suffix != SUFFIX:
        raise LsfdError(f"{path}: an ONNX file's name ends in {SUFFIX}")
    deployed = _deployed(network).eval()
    sides = {2: torch.export.Dim("h", min=1), 3: torch.export.Dim("w", min=1)}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                deployed,
                (trial_input(network),),
                dynamo=True,
                dynamic_shapes=(sides,),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                verbose=False,
            )
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # A foreign network's forward may be beyond the exporter in any way.
        reason = " ".join(str(error).split())[:200]
        raise LsfdError(f"{path}: {type(network).__name__} cannot be exported: {reason}") from error
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"network{SUFFIX}"
        program.save(temporary)
        write_bytes(path, temporary.read_bytes())


class OnnxUpscaler:
    """An ONNX file as a function from an 8-bit image to a larger 8-bit image."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open the file.

        Args:
            path: what :func:`export_onnx` wrote.
            threads: processor cores; None: as many as torch uses.

        Raises:
            LsfdError: ONNX Runtime is not installed, or cannot read the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise _not_installed(error) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise LsfdError(f"{path}: is no ONNX file that can be run: {reason}") from error

    def run(self, lq: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the output for 1 x 3 x h x w in 0..1."""
        return self._session.run([_OUTPUT], {_INPUT: lq})[0]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a uint8 H x W x 3 image enlarged, rounded half up as ``Upscaler`` does."""
        lq = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        levels = np.floor(self.run(np.ascontiguousarray(lq))[0] * 255 + 0.5).clip(0, 255)
        return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def _not_installed(error: ImportError) -> LsfdError:
    return LsfdError(
        f"ONNX needs a package that is not installed ({error}): pip install lsfd[onnx]"
    )


# A quantised network's modules as they are written to the file


def _deployed(network: nn.Module) -> nn.Module:
    """Return a copy in which quantised convolutions compute in integers."""
    deployed = copy.deepcopy(network)
    for name, module in list(deployed.named_modules()):
        if isinstance(module, QuantizedConv2d):
            deployed.set_submodule(name, _IntegerConv(module))
    return deployed


class _IntegerConv(nn.Module):
    """A convolution of uint8 by int8."""

    def __init__(self, conv: QuantizedConv2d) -> None:
        super().__init__()
        if conv.bits != BITS:
            raise LsfdError(f"bits: integer kernels are for {BITS} bits, not {conv.bits}")
        self.stride, self.padding, self.groups = conv.stride, conv.padding, conv.groups
        # Where the input is quantised already, this changes nothing but for the kernels to see it.
        self.input_levels = _Levels(conv.given)
        self.output_levels = None if conv.output_range is None else _Levels(conv.output_range)
        scale, bias_scale = conv.weight_scale(), conv.bias_scale()
        weight = (conv.quantized_weight().detach() / scale).round()
        bias = (conv.quantized_bias().detach() / bias_scale).round()
        self._keep("weight", weight.to(torch.int8), scale.flatten())
        self._keep("bias", bias.to(torch.int32), bias_scale)

    def _keep(self, name: str, levels: Tensor, scale: Tensor) -> None:
        self.register_buffer(name, levels)
        self.register_buffer(f"{name}_scale", scale)
        self.register_buffer(f"{name}_zero", torch.zeros_like(scale, dtype=levels.dtype))

    def _float(self, name: str) -> Tensor:
        levels, scale, zero = (getattr(self, name + end) for end in ("", "_scale", "_zero"))
        return _onnx("DequantizeLinear", (levels, scale, zero), torch.float32, axis=0)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(
            self.input_levels(x), self._float("weight"), self._float("bias"), self.stride,
            self.padding, groups=self.groups,
        )  # fmt: skip
        return x if self.output_levels is None else self.output_levels(x)


class _Levels(nn.Module):
    """Quantises and dequantises activations: uint8 is between the two."""

    scale: Tensor
    zero: Tensor

    def __init__(self, learned: LearnedRange) -> None:
        super().__init__()
        if learned.bits != BITS:
            raise LsfdError(f"bits: integer kernels are for {BITS} bits, not {learned.bits}")
        self.register_buffer("scale", learned.scale().detach().clone())
        self.register_buffer("zero", torch.tensor(-learned.lowest, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        levels = _onnx("QuantizeLinear", (x, self.scale, self.zero), torch.uint8)
        return _onnx("DequantizeLinear", (levels, self.scale, self.zero), torch.float32)


def _onnx(operator: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, axis: int = 1) -> Tensor:
    """Return a tensor of the first input's shape that an operator of ONNX gives."""
    return torch.onnx.ops.symbolic(
        operator, inputs, {"axis": axis}, dtype=dtype, shape=inputs[0].shape
    )
