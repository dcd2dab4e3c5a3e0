"""EDSR and SlimEDSR as OpenVINO graphs, straight from a student's file.

No PyTorch is imported for it, which would take longer than to upscale a photograph. Equations and
names of weights: :mod:`lsfd.networks.slim_edsr`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from lsfd.errors import LsfdError
from lsfd.networks.card import StudentCard
from lsfd.networks.linear_tail import Layer, costs_less, one_convolution
from lsfd.networks.seal import check_seal_of

if TYPE_CHECKING:
    import openvino

_STEPS = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2), 16: (2, 2, 2, 2)}
"""By what the upsampler's parts enlarge, for each scale."""

_BESIDE_BORDER = 3
"""Rows, or columns, that the outermost one of the result depends on."""

_END = np.iinfo(np.int32).max

Weights = Mapping[str, NDArray[np.float32]]
Width = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class EdsrFile:
    """What a student's file holds.

    Attributes:
        card: what it says about itself.
        options: of its architecture, checked.
        weights: float32, by name; those that the options ask for.
    """

    card: StudentCard
    options: _Options
    weights: Weights

    @property
    def reach(self) -> int:
        """How many input pixels to each side a pixel of the result depends on."""
        steps = _STEPS[self.options.upscale]
        beside = 2.0 + 2 * len(self.options.widths)  # The body, and a layer on either side of it.
        beside += sum(1 / math.prod(steps[:number]) for number in range(len(steps)))
        return math.ceil(beside + 1 / self.options.upscale)


def read_edsr(path: Path) -> EdsrFile | None:
    """Read a student's file; None: it holds something else, or something is wrong with it.

    What is wrong, :func:`lsfd.networks.student_file.read_student` can say.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            card = StudentCard.from_metadata(file.metadata())
            options = _Options.model_validate(card.architecture)
            names = set(file.keys())
            if names != set(options.shapes()) or options.upscale != card.scale:
                return None
            weights = {name: file.get_tensor(name).astype(np.float32) for name in names}
        check_seal_of(path)
    except (LsfdError, ValidationError, SafetensorError, OSError, ValueError, TypeError):
        return None
    for name, shape in options.shapes().items():
        if weights[name].shape != shape or not np.isfinite(weights[name]).all():
            return None
    return EdsrFile(card, options, weights)


def edsr_graph(file: EdsrFile) -> openvino.Model:
    """Return the network: float32 N x 3 x h x w -> N x 3 x sh x sw, RGB in 0..1."""
    import openvino
    from openvino import opset13 as ops

    options, weights = file.options, file.weights
    image = ops.parameter([-1, 3, -1, -1], openvino.Type.f32)
    mean = np.array(options.rgb_mean, np.float32)
    # The range of values and the mean at the end are put into the weights.
    layers = {
        name: (weights[f"{name}.weight"], weights[f"{name}.bias"])
        for name in (key.removesuffix(".bias") for key in weights if key.endswith(".bias"))
    }
    kernel, bias = layers["conv_first"]
    values = ops.subtract(image, mean.reshape(1, 3, 1, 1))
    shallow = deep = _convolution(values, (kernel * np.float32(options.img_range), bias))
    for number in range(len(options.widths)):
        inner = ops.relu(_convolution(deep, layers[f"body.{number}.conv1"]))
        residual = [part * np.float32(options.res_scale) for part in layers[f"body.{number}.conv2"]]
        deep = ops.add(deep, _convolution(inner, residual))
    deep = ops.add(_convolution(deep, layers["conv_after_body"]), shallow)
    steps = _STEPS[options.upscale]
    tail = [layers[f"upsample.{2 * number}"] for number in range(len(steps))]
    last = [part / np.float32(options.img_range) for part in layers["conv_last"]]
    tail.append((last[0], last[1] + mean))
    enlarged = (
        _short_tail(deep, tail, steps) if costs_less(tail, steps) else _tail(deep, tail, steps)
    )
    return openvino.Model([enlarged], [image], "lsfd")


def _convolution(given: Any, layer: Sequence[NDArray[Any]]) -> Any:
    """Add a convolution of stride 1 that keeps the size."""
    from openvino import opset13 as ops

    kernel, bias = layer
    ones, beside = [1, 1], [kernel.shape[-1] // 2] * 2
    convolved = ops.convolution(given, ops.constant(kernel), ones, beside, beside, ones)
    return ops.add(convolved, ops.constant(bias.reshape(1, -1, 1, 1)))


def _tail(deep: Any, layers: Sequence[Layer], steps: Sequence[int]) -> Any:
    """Add upsampler and last convolution: N x C x h x w -> N x 3 x sh x sw."""
    from openvino import opset13 as ops

    for layer, step in zip(layers, steps, strict=False):
        deep = ops.depth_to_space(_convolution(deep, layer), "depth_first", step)
    return _convolution(deep, layers[-1])


def _short_tail(deep: Any, layers: Sequence[Layer], steps: Sequence[int]) -> Any:
    """Add the same as one convolution, and as it is along the border, where that would differ."""
    from openvino import opset13 as ops

    scale = math.prod(steps)
    whole = ops.depth_to_space(
        _convolution(deep, one_convolution(layers, steps)), "depth_first", scale
    )
    for axis in (3, 2):
        first = _tail(_part(deep, axis, 0, _BESIDE_BORDER), layers, steps)
        last = _tail(_part(deep, axis, -_BESIDE_BORDER, _END), layers, steps)
        # An image of one row has only its first.
        rows = ops.minimum(ops.subtract(_length(deep, axis), np.array([1])), np.array([1]))
        start = ops.subtract(_length(last, axis), ops.multiply(rows, np.array([scale])))
        parts = [
            _part(first, axis, 0, scale),
            _part(whole, axis, scale, -scale),
            _part(last, axis, start, _END),
        ]
        whole = ops.concat(parts, axis)
    return whole


def _part(given: Any, axis: int, start: Any, stop: int) -> Any:
    """Add a cut along an axis."""
    from openvino import opset13 as ops

    begin = np.array([start]) if isinstance(start, int) else start
    return ops.slice(given, begin, np.array([stop]), np.array([1]), np.array([axis]))


def _length(given: Any, axis: int) -> Any:
    """Add what finds out how long an axis is."""
    from openvino import opset13 as ops

    return ops.gather(ops.shape_of(given), np.array([axis]), np.array(0))


class _Options(BaseModel):
    """Arguments of EDSR and SlimEDSR, with their defaults."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    type: Literal["EDSR", "SlimEDSR"]
    num_in_ch: Literal[3]
    num_out_ch: Literal[3]
    num_feat: Width = 64
    num_block: Annotated[int, Field(ge=1, le=4096)] = 16
    block_widths: list[Width] | None = None
    upsample_width: Width | None = None
    upscale: Literal[2, 3, 4, 8, 16] = 4
    res_scale: float = 1
    img_range: Annotated[float, Field(gt=0)] = 255.0
    rgb_mean: Annotated[list[float], Field(min_length=3, max_length=3)] = [0.4488, 0.4371, 0.4040]

    @model_validator(mode="after")
    def _own_arguments(self) -> _Options:
        foreign = {"num_block"} if self.type == "SlimEDSR" else {"block_widths", "upsample_width"}
        if foreign & self.model_fields_set:
            raise ValueError(f"{self.type} has no such arguments")
        return self

    @property
    def widths(self) -> list[int]:
        """The inner width of each block."""
        if self.block_widths is not None:
            return self.block_widths
        return [self.num_feat] * self.num_block

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all weights, by name."""
        channels, inside = self.num_feat, self.upsample_width or self.num_feat
        layers = {"conv_first": (channels, 3), "conv_after_body": (channels, channels)}
        for number, width in enumerate(self.widths):
            layers[f"body.{number}.conv1"] = (width, channels)
            layers[f"body.{number}.conv2"] = (channels, width)
        for number, step in enumerate(_STEPS[self.upscale]):
            layers[f"upsample.{2 * number}"] = (inside * step**2, inside if number else channels)
        layers["conv_last"] = (3, inside)
        return {
            f"{name}.{part}": (made, given, 3, 3)[: 4 if part == "weight" else 1]
            for name, (made, given) in layers.items()
            for part in ("weight", "bias")
        }
