"""EDSR whose parts have widths of their own: what compression by blocks leaves of an EDSR.

    F = conv_first(img_range (x - mean)): N x C x h x w,   C = num_feat
    block b:     F <- F + res_scale conv2(relu(conv1(F))),  conv1: C -> w_b,  conv2: w_b -> C
    upsampler:   N x C x h x w -> N x u x sh x sw,          u = upsample_width
    conv_last:   u -> 3

Between the blocks all C channels remain, so that each part fits where the EDSR's own was. Names and
layout are those of BasicSR's EDSR (Lim et al., CVPRW 2017): with w_b = u = C this is that network,
with its state dict and, bit for bit, its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.keys import DIV2K_MEAN


class SlimBlock(nn.Module):
    """EDSR's residual block with an inner width: N x C x h x w -> the same."""

    def __init__(self, num_feat: int, width: int, res_scale: float = 1) -> None:
        """Make a block with fresh weights.

        Args:
            num_feat: C.
            width: channels between the two convolutions.
            res_scale: factor of the residual.
        """
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = nn.Conv2d(num_feat, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, num_feat, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual."""
        return torch.add(x, self.conv2(self.relu(self.conv1(x))), alpha=self.res_scale)


def slim_upsampler(num_feat: int, width: int, upscale: int) -> nn.Sequential:
    """Make EDSR's upsampler with a width: N x C x h x w -> N x width x sh x sw.

    Raises:
        LsfdError: ``upscale`` is none that EDSR knows.
    """
    steps = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2], 16: [2, 2, 2, 2]}.get(upscale)
    if steps is None:
        raise LsfdError(f"upscale: must be 2, 3, 4, 8 or 16, not {upscale}")
    layers: list[nn.Module] = []
    for step in steps:
        layers += [nn.Conv2d(num_feat, step**2 * width, 3, 1, 1), nn.PixelShuffle(step)]
        num_feat = width
    return nn.Sequential(*layers)


@ARCH_REGISTRY.register()
class SlimEDSR(nn.Module):
    """EDSR with a width for each block and for the upsampler."""

    mean: Tensor

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        num_feat: int = 64,
        block_widths: Sequence[int] = (64,) * 16,
        upsample_width: int | None = None,
        upscale: int = 4,
        res_scale: float = 1,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = DIV2K_MEAN,
    ) -> None:
        """Make a network with fresh weights.

        Args:
            num_in_ch: 3.
            num_out_ch: 3.
            num_feat: C, the channels between the blocks.
            block_widths: w_b, one inner width for each residual block; may be empty.
            upsample_width: u, the channels of the upsampler; C where there is none.
            upscale: s, 2, 3, 4, 8 or 16.
            res_scale: factor of the residuals.
            img_range: the range of values the network works in.
            rgb_mean: the mean of the three colours, in 0..1.

        Raises:
            LsfdError: ``upscale`` is none that EDSR knows.
        """
        super().__init__()
        width = num_feat if upsample_width is None else upsample_width
        self.img_range = img_range
        # EDSR's mean is no part of its state dict.
        mean = torch.tensor(rgb_mean, dtype=torch.float32).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(SlimBlock(num_feat, w, res_scale) for w in block_widths))
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = slim_upsampler(num_feat, width, upscale)
        self.conv_last = nn.Conv2d(width, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge RGB images in 0..1: N x 3 x h x w -> N x 3 x sh x sw."""
        mean = self.mean.type_as(x)
        shallow = self.conv_first((x - mean) * self.img_range)
        deep = self.conv_after_body(self.body(shallow)) + shallow
        return self.conv_last(self.upsample(deep)) / self.img_range + mean


def as_slim(edsr: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the SlimEDSR that equals an EDSR, from the EDSR's options.

    Args:
        edsr: Options of BasicSR's shape; what they leave out has EDSR's default.
    """
    options = {"num_feat": 64, "num_block": 16, **edsr, "type": "SlimEDSR"}
    count = options.pop("num_block")
    return {
        **options,
        "block_widths": [options["num_feat"]] * count,
        "upsample_width": options["num_feat"],
    }
