"""A quantised network's convolutions in real 8-bit integers, as they are written to ONNX.

They become ``DequantizeLinear -> Conv -> QuantizeLinear`` with the scales that were learned and
weights stored as int8: what ONNX Runtime and OpenVINO turn into integer kernels. Activations of
either sign are uint8 around 128, those after a ReLU uint8 from 0; biases are int32.

A runtime rounds the sums of a convolution once, the network in training after every operation: now
and then a value falls on the neighbouring level. On x86 processors without VNNI instructions
kernels add up pairs of products in 16 bits, which can overflow: results are worse there.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.errors import LsfdError
from lsfd.networks.quantization import LearnedRange, QuantizedConv2d

BITS = 8


def has_integers(network: nn.Module) -> bool:
    """Whether a network was trained, or calibrated, to compute in integers."""
    return any(isinstance(module, QuantizedConv2d) for module in network.modules())


def in_integers(network: nn.Module) -> nn.Module:
    """Return a copy in which quantised convolutions compute in integers.

    Raises:
        LsfdError: they have other than 8 bits.
    """
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
