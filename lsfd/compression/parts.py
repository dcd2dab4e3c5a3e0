"""An EDSR in parts: groups of residual blocks and the tail, and the smaller forms of each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.metrics.cost import count_parameters
from lsfd.networks.build import build_network, network_scale
from lsfd.networks.slim_edsr import SlimBlock, SlimEDSR, as_slim, slim_upsampler

KERNEL = 9
"""Weights of a 3 x 3 filter for each channel that it reads."""


@dataclass(frozen=True, order=True)
class Shape:
    """What a candidate keeps of its part.

    Attributes:
        depth: residual blocks; 1 for the tail.
        width: channels inside each block, or of the upsampler; 0 where there is no block.
    """

    depth: int
    width: int


class Enlarger(nn.Module):
    """EDSR's tail, with a width: N x C x h x w -> N x 3 x sh x sw, still without EDSR's mean."""

    def __init__(self, upsample: nn.Sequential, conv_last: nn.Conv2d) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv_last = conv_last

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge."""
        return self.conv_last(self.upsample(x))

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """All of them, in order."""
        return [*(one for one in self.upsample if isinstance(one, nn.Conv2d)), self.conv_last]

    @property
    def steps(self) -> list[int]:
        """The factors by which it enlarges, one after the other."""
        return [one.upscale_factor for one in self.upsample if isinstance(one, nn.PixelShuffle)]


class Part(ABC):
    """A piece of a teacher that smaller ones can take the place of.

    Attributes:
        name: such as ``blocks 1-4``.
        module: the teacher's own.
        full: its shape.
    """

    name: str
    module: nn.Module
    full: Shape

    @abstractmethod
    def shapes(self, depths: Sequence[int], widths: Sequence[float]) -> list[Shape]:
        """Return the shapes to try, the teacher's own among them, without repetitions.

        Args:
            depths: blocks to keep; what the part does not have is left out.
            widths: shares of the channels to keep, at least one channel.
        """

    @abstractmethod
    def cut(self, shape: Shape) -> nn.Module:
        """Return a copy of this shape that keeps the filters with the largest norms.

        A channel between two convolutions counts as much as the product of the norms of the
        filter that makes it and of the weights that read it: ReLU lets a factor move from the one
        to the other, which changes neither the network nor this product.
        """

    @abstractmethod
    def parameters(self, shape: Shape) -> int:
        """Return how many parameters a candidate has."""

    @abstractmethod
    def multiply_adds(self, shape: Shape) -> int:
        """Return a candidate's multiply-adds for each low-resolution pixel."""


class Group(Part):
    """Residual blocks in a row: N x C x h x w -> the same."""

    def __init__(self, name: str, blocks: Sequence[SlimBlock], channels: int) -> None:
        self.name = name
        self.module = nn.Sequential(*blocks)
        self.full = Shape(len(blocks), blocks[0].conv1.out_channels)
        self._blocks = blocks
        self._channels = channels

    def shapes(self, depths: Sequence[int], widths: Sequence[float]) -> list[Shape]:
        """Combine each depth with each width; without blocks there is no width."""
        kept = {depth for depth in depths if depth < self.full.depth} | {self.full.depth}
        channels = _channels(self.full, widths)
        return sorted({Shape(depth, width if depth else 0) for depth in kept for width in channels})

    def cut(self, shape: Shape) -> nn.Module:
        """Keep those blocks whose channels count most, and the channels that do so in each."""
        norms = [_channel_norms(block) for block in self._blocks]
        sums = torch.stack([norm.sum() for norm in norms])
        return nn.Sequential(
            *(
                self._narrowed(self._blocks[index], _largest(norms[index], shape.width))
                for index in _largest(sums, shape.depth).tolist()
            )
        )

    def _narrowed(self, block: SlimBlock, keep: Tensor) -> SlimBlock:
        """Return a copy of a block with some of its inner channels."""
        narrow = SlimBlock(self._channels, len(keep), block.res_scale)
        first, second = _weights(block.conv1), _weights(block.conv2)
        _fill(narrow.conv1, first[0][keep], first[1][keep])
        _fill(narrow.conv2, second[0][:, keep], second[1])
        return narrow

    def parameters(self, shape: Shape) -> int:
        """Count weights and biases of two convolutions in each block."""
        biases = shape.width + self._channels
        return shape.depth * (2 * KERNEL * self._channels * shape.width + biases)

    def multiply_adds(self, shape: Shape) -> int:
        """Count two convolutions in each block."""
        return shape.depth * 2 * KERNEL * self._channels * shape.width


class Tail(Part):
    """Upsampler and last convolution."""

    def __init__(self, enlarger: Enlarger) -> None:
        self.name = "tail"
        self.module = enlarger
        self.full = Shape(1, enlarger.conv_last.in_channels)
        self._own = enlarger

    def shapes(self, depths: Sequence[int], widths: Sequence[float]) -> list[Shape]:
        """Take each width."""
        return sorted(Shape(1, width) for width in _channels(self.full, widths))

    def cut(self, shape: Shape) -> nn.Module:
        """Keep the channels behind each enlargement that count most."""
        old, steps = self._own.convolutions, self._own.steps
        upsample = slim_upsampler(old[0].in_channels, shape.width, math.prod(steps))
        new = Enlarger(upsample, nn.Conv2d(shape.width, old[-1].out_channels, 3, 1, 1))
        read = torch.arange(old[0].in_channels)
        for layer, narrow, reader, step in zip(
            old[:-1], new.convolutions[:-1], old[1:], steps, strict=True
        ):
            # So many filters in a row make one channel behind the shuffle.
            filters, biases = (each.unflatten(0, (-1, step**2)) for each in _weights(layer))
            keep = _largest(filters.flatten(1).norm(dim=1) * _reading_norms(reader), shape.width)
            _fill(narrow, filters[keep].flatten(0, 1)[:, read], biases[keep].flatten())
            read = keep
        weight, bias = _weights(old[-1])
        _fill(new.conv_last, weight[:, read], bias)
        return new

    def parameters(self, shape: Shape) -> int:
        """Count weights and biases of the upsampler's convolutions and the last one."""
        return sum(KERNEL * ins * outs + outs for ins, outs, _ in self._sizes(shape.width))

    def multiply_adds(self, shape: Shape) -> int:
        """Count the upsampler's convolutions and the last one, each on its own grid."""
        return sum(KERNEL * ins * outs * pixels for ins, outs, pixels in self._sizes(shape.width))

    def _sizes(self, width: int) -> list[tuple[int, int, int]]:
        """Return channels in, channels out and pixels for each low-resolution one."""
        found, pixels = [], 1
        ins = self._own.convolutions[0].in_channels
        for step in self._own.steps:
            found.append((ins, step**2 * width, pixels))
            ins, pixels = width, pixels * step**2
        return [*found, (ins, self._own.conv_last.out_channels, pixels)]


class Split:
    """A frozen teacher as head, groups of blocks, and tail.

    Attributes:
        options: the teacher as a SlimEDSR.
        network: the same with its weights.
        parts: the groups in order, then the tail.
    """

    def __init__(self, teacher: nn.Module, group_size: int) -> None:
        """Split a teacher.

        Args:
            teacher: BasicSR's EDSR; a copy is made of it.
            group_size: blocks in a group; what is left over is the last group.

        Raises:
            LsfdError: the teacher is no EDSR.
        """
        self.options = as_slim(_options_of(teacher))
        self.network = _built(self.options, teacher.state_dict())
        blocks = _blocks(self.network.body)
        self.parts: list[Part] = [
            Group(_name(start, group), group, self.options["num_feat"])
            for start in range(0, len(blocks), group_size)
            for group in [blocks[start : start + group_size]]
        ]
        self.parts.append(Tail(Enlarger(self.network.upsample, self.network.conv_last)))

    @property
    def scale(self) -> int:
        """How many times larger the output is."""
        return int(self.options["upscale"])

    @property
    def fixed_parameters(self) -> int:
        """Parameters that no part holds."""
        return sum(map(count_parameters, (self.network.conv_first, self.network.conv_after_body)))

    @property
    def fixed_multiply_adds(self) -> int:
        """Multiply-adds for each low-resolution pixel that no part takes."""
        fixed = (self.network.conv_first, self.network.conv_after_body)
        return sum(layer.weight.numel() for layer in fixed)

    @torch.no_grad()
    def given(self, index: int, images: Tensor) -> Tensor:
        """Return what the teacher gives to a part: N x 3 x h x w -> N x C x h x w."""
        shallow = self._shallow(images)
        feature = shallow
        for part in self.parts[: min(index, len(self.parts) - 1)]:
            feature = part.module(feature)
        return feature if index < len(self.parts) - 1 else self._deep(feature, shallow)

    @torch.no_grad()
    def finished(self, index: int, feature: Tensor, images: Tensor) -> Tensor:
        """Return the image that the teacher makes of what a part gave: N x 3 x sh x sw.

        Args:
            index: of the part.
            feature: what it, or what took its place, gave.
            images: what the teacher was given, N x 3 x h x w.
        """
        if index < len(self.parts) - 1:
            for part in self.parts[index + 1 : -1]:
                feature = part.module(feature)
            feature = self.parts[-1].module(self._deep(feature, self._shallow(images)))
        return feature / self.network.img_range + self.network.mean

    def assemble(self, chosen: Sequence[nn.Module]) -> tuple[SlimEDSR, dict[str, Any]]:
        """Return the network with one candidate in place of each part, and its options."""
        blocks = [block for group in chosen[:-1] for block in _blocks(group)]
        tail = chosen[-1]
        assert isinstance(tail, Enlarger)
        options = {
            **self.options,
            "block_widths": [block.conv1.out_channels for block in blocks],
            "upsample_width": tail.conv_last.in_channels,
        }
        state = {
            **_prefixed("conv_first.", self.network.conv_first),
            **_prefixed("conv_after_body.", self.network.conv_after_body),
            **_prefixed("body.", nn.Sequential(*blocks)),
            **_prefixed("", tail),
        }
        return _built(options, state), options

    def _shallow(self, images: Tensor) -> Tensor:
        return self.network.conv_first((images - self.network.mean) * self.network.img_range)

    def _deep(self, feature: Tensor, shallow: Tensor) -> Tensor:
        return self.network.conv_after_body(feature) + shallow


def _options_of(teacher: nn.Module) -> dict[str, Any]:
    """Return the options of an EDSR."""
    if type(teacher) is not EDSR:  # Others inherit from it.
        raise LsfdError(
            f"the teacher is {type(teacher).__name__}; only an EDSR can be compressed block by "
            "block"
        )
    edsr: Any = teacher
    return {
        "num_in_ch": edsr.conv_first.in_channels,
        "num_out_ch": edsr.conv_last.out_channels,
        "num_feat": edsr.conv_first.out_channels,
        "num_block": len(edsr.body),
        "upscale": network_scale(edsr),
        "res_scale": edsr.body[0].res_scale,
        "img_range": float(edsr.img_range),
        # 0.4488, not 0.44879999...
        "rgb_mean": [float(str(value)) for value in edsr.mean.flatten().float().numpy()],
    }


def _built(options: dict[str, Any], state: dict[str, Tensor]) -> SlimEDSR:
    with torch.random.fork_rng(devices=[]):  # Weights drawn here are overwritten.
        network = build_network(options)
    assert isinstance(network, SlimEDSR)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _channels(full: Shape, shares: Sequence[float]) -> set[int]:
    return {max(1, round(share * full.width)) for share in shares} | {full.width}


def _blocks(body: nn.Module) -> list[SlimBlock]:
    return [block for block in body.children() if isinstance(block, SlimBlock)]


def _name(start: int, blocks: Sequence[SlimBlock]) -> str:
    first, last = start + 1, start + len(blocks)
    return f"blocks {first}-{last}" if last > first else f"block {first}"


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in module.state_dict().items()}


def _channel_norms(block: SlimBlock) -> Tensor:
    """Return what each inner channel of a block counts."""
    return block.conv1.weight.flatten(1).norm(dim=1) * _reading_norms(block.conv2)


def _reading_norms(layer: nn.Conv2d) -> Tensor:
    """Return the norm of the weights that read each channel."""
    return layer.weight.transpose(0, 1).flatten(1).norm(dim=1)


def _largest(values: Tensor, count: int) -> Tensor:
    """Return the indices of the largest values, in ascending order."""
    return values.argsort(descending=True, stable=True)[:count].sort().values


def _weights(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight.detach(), layer.bias.detach()


def _fill(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})
