"""The architectures of published networks, for scripts/landscape.py to time.

Those that neither BasicSR nor lsfd has are here, written from what is published of them; tests
compare their parameters and multiply-adds with the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsfd.networks.build import build_network


def build_published(architecture: Mapping[str, Any], scale: int) -> nn.Module:
    """Build a network with random weights.

    Args:
        architecture: a ``type`` and its arguments, as in an option file, without the scale.
        scale: the s of N x 3 x H x W to N x 3 x sH x sW.

    Raises:
        LsfdError: as :func:`~lsfd.networks.build.build_network`.
    """
    options = {**architecture, "upscale": scale}
    if options["type"] in HERE:
        return HERE[options.pop("type")](**options)
    return build_network(options)


def conv(num_in: int, num_out: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps height and width."""
    return nn.Conv2d(num_in, num_out, kernel, padding=kernel // 2, groups=groups)


def upsampler(num_feat: int, scale: int, groups: int) -> nn.Sequential:
    """Return convolutions and pixel shuffles, in steps of 2 where the scale is 4."""
    layers: list[nn.Module] = []
    for step in [2, 2] if scale == 4 else [scale]:
        layers += [
            conv(num_feat, num_feat * step**2, groups=groups),
            nn.ReLU(inplace=True),
            nn.PixelShuffle(step),
        ]
    return nn.Sequential(*layers)


class FSRCNN(nn.Module):
    """FSRCNN(56, 12, 4) (Dong et al., ECCV 2016) on luma, the mean of the channels here.

    Colours are enlarged bicubically, as its users do.
    """

    def __init__(self, upscale: int = 4) -> None:
        super().__init__()
        self.scale = upscale
        layers: list[nn.Module] = [conv(1, 56, 5), nn.PReLU(56), conv(56, 12, 1), nn.PReLU(12)]
        for _ in range(4):
            layers += [conv(12, 12), nn.PReLU(12)]
        layers += [conv(12, 56, 1), nn.PReLU(56)]
        self.body = nn.Sequential(*layers)
        self.last = nn.ConvTranspose2d(56, 1, 9, upscale, 4, output_padding=upscale - 1)

    def forward(self, lq: Tensor) -> Tensor:
        """Enlarge."""
        luma = lq.mean(1, keepdim=True)
        colour = F.interpolate(lq - luma, scale_factor=self.scale, mode="bicubic")
        return colour + self.last(self.body(luma))


class EfficientResidual(nn.Module):
    """CARN-M's residual block: two convolutions in groups, one of 1 x 1."""

    def __init__(self, num_feat: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(num_feat, num_feat, groups=groups),
            nn.ReLU(inplace=True),
            conv(num_feat, num_feat, groups=groups),
            nn.ReLU(inplace=True),
            conv(num_feat, num_feat, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep width, height and channels."""
        return F.relu(self.body(x) + x)


class Cascade(nn.Module):
    """Three parts, each followed by a 1 x 1 convolution of all that came before it.

    Args:
        parts: the three; the same module three times shares its weights.
        num_feat: width.
    """

    def __init__(self, parts: list[nn.Module], num_feat: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.fusions = nn.ModuleList(
            nn.Sequential(conv(num_feat * (n + 2), num_feat, 1), nn.ReLU(inplace=True))
            for n in range(len(parts))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep width, height and channels."""
        collected = x
        for part, fusion in zip(self.parts, self.fusions, strict=True):
            collected = torch.cat([collected, part(x)], 1)
            x = fusion(collected)
        return x


class CARNM(nn.Module):
    """CARN-M (Ahn et al., ECCV 2018): groups of 4, shared residual blocks; one scale's upsampler.

    The published count of parameters has the upsamplers of all three scales, and no biases.
    """

    def __init__(self, num_feat: int = 64, groups: int = 4, upscale: int = 4) -> None:
        super().__init__()
        self.first = conv(3, num_feat)
        self.body = Cascade(
            [Cascade([EfficientResidual(num_feat, groups)] * 3, num_feat) for _ in range(3)],
            num_feat,
        )
        self.upsample = upsampler(num_feat, upscale, groups)
        self.last = conv(num_feat, 3)

    def forward(self, lq: Tensor) -> Tensor:
        """Enlarge."""
        return self.last(self.upsample(self.body(self.first(lq))))


class ContrastAttention(nn.Module):
    """IMDN's channel attention: the standard deviation joins the mean of the usual one."""

    def __init__(self, num_feat: int, squeezed: int) -> None:
        super().__init__()
        self.weight = nn.Sequential(
            conv(num_feat, squeezed, 1),
            nn.ReLU(inplace=True),
            conv(squeezed, num_feat, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep width, height and channels."""
        contrast = x.std((2, 3), keepdim=True, correction=0)
        return x * self.weight(x.mean((2, 3), keepdim=True) + contrast)


class MultiDistillation(nn.Module):
    """IMDN's block: a quarter of the channels is kept at each of four convolutions."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.kept = num_feat // 4
        rest = num_feat - self.kept
        self.convs = nn.ModuleList(conv(width, num_feat) for width in (num_feat, rest, rest))
        self.last = conv(rest, self.kept)
        self.attention = ContrastAttention(num_feat, num_feat // 16)
        self.fuse = conv(num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep width, height and channels."""
        kept, rest = [], x
        for each in self.convs:
            out = F.leaky_relu(each(rest), 0.05)
            kept.append(out[:, : self.kept])
            rest = out[:, self.kept :]
        joined = torch.cat([*kept, self.last(rest)], 1)
        return self.fuse(self.attention(joined)) + x


class FeatureDistillation(nn.Module):
    """RFDN's block: 1 x 1 convolutions keep half of the channels, 3 x 3 ones with a skip go on."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        half = num_feat // 2
        self.keep = nn.ModuleList(conv(num_feat, half, 1) for _ in range(3))
        self.refine = nn.ModuleList(conv(num_feat, num_feat) for _ in range(3))
        self.last = conv(num_feat, half)
        self.fuse = conv(4 * half, num_feat, 1)
        self.attention = ContrastAttention(num_feat, num_feat // 4)

    def forward(self, x: Tensor) -> Tensor:
        """Keep width, height and channels."""
        kept = []
        for keep, refine in zip(self.keep, self.refine, strict=True):
            kept.append(F.leaky_relu(keep(x), 0.05))
            x = F.leaky_relu(refine(x) + x, 0.05)
        joined = torch.cat([*kept, F.leaky_relu(self.last(x), 0.05)], 1)
        return self.attention(self.fuse(joined))


class Joined(nn.Module):
    """Blocks all of whose outputs are joined, then a long skip and one pixel shuffle."""

    def __init__(self, blocks: list[nn.Module], num_feat: int, upscale: int) -> None:
        super().__init__()
        self.first = conv(3, num_feat)
        self.blocks = nn.ModuleList(blocks)
        self.join = nn.Sequential(
            conv(len(blocks) * num_feat, num_feat, 1),
            nn.LeakyReLU(0.05, inplace=True),
            conv(num_feat, num_feat),
        )
        self.upsample = nn.Sequential(conv(num_feat, 3 * upscale**2), nn.PixelShuffle(upscale))

    def forward(self, lq: Tensor) -> Tensor:
        """Enlarge."""
        x = first = self.first(lq)
        outputs = [x := block(x) for block in self.blocks]
        return self.upsample(self.join(torch.cat(outputs, 1)) + first)


class IMDN(Joined):
    """IMDN (Hui et al., ACM MM 2019)."""

    def __init__(self, num_feat: int = 64, num_block: int = 6, upscale: int = 4) -> None:
        blocks: list[nn.Module] = [MultiDistillation(num_feat) for _ in range(num_block)]
        super().__init__(blocks, num_feat, upscale)


class RFDN(Joined):
    """RFDN (Liu et al., ECCV 2020 workshops), put together from the blocks of its repository.

    Of what was tried this alone has as many parameters as RFDN is said to have.
    """

    def __init__(self, num_feat: int = 48, num_block: int = 6, upscale: int = 4) -> None:
        blocks: list[nn.Module] = [FeatureDistillation(num_feat) for _ in range(num_block)]
        super().__init__(blocks, num_feat, upscale)


HERE: dict[str, type[nn.Module]] = {
    "FSRCNN": FSRCNN,
    "CARN-M": CARNM,
    "IMDN": IMDN,
    "RFDN": RFDN,
}
"""By type."""
