"""EDSR with cheap convolutions in its body: depthwise-separable ones instead of full ones.

    conv(F) = P (D * F) + c,      F: N x C x h x w
    D: C x 3 x 3, one filter (and bias) for each channel;   P: C x C, the channels mixed per pixel

Depthwise-separable convolutions are Sifre's; MobileNet (Howard et al., arXiv 1704.04861) made them
the means to a cheap network. That the two halves have nothing between them (MobileNet has batch
normalisation and a ReLU there) is our choice: EDSR's block has one ReLU, and so has this one.
Layout and names are otherwise those of BasicSR's EDSR: ``body.0.conv1.depthwise.weight``.

A body convolution has 9C + C^2 weights instead of 9C^2: 7 times fewer with 32 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import lsfd.compat  # noqa: F401

from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from lsfd.networks.keys import DIV2K_MEAN


class SeparableConv(nn.Module):
    """A depthwise 3 x 3 convolution and a 1 x 1 convolution: N x C x h x w -> the same."""

    def __init__(self, channels: int) -> None:
        """Make one with fresh weights.

        Args:
            channels: C.
        """
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel, then mix them."""
        return self.pointwise(self.depthwise(x))


@ARCH_REGISTRY.register()
class CheapEDSR(EDSR):
    """EDSR with depthwise-separable convolutions in its residual blocks."""

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        res_scale: float = 1,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = DIV2K_MEAN,
    ) -> None:
        """Make a network with fresh weights; the arguments are EDSR's.

        Args:
            num_in_ch: 3.
            num_out_ch: 3.
            num_feat: C, the channels between the blocks.
            num_block: residual blocks.
            upscale: s, a power of 2, or 3.
            res_scale: factor of the residuals.
            img_range: the range of values the network works in.
            rgb_mean: the mean of the three colours, in 0..1.
        """
        super().__init__(
            num_in_ch, num_out_ch, num_feat, num_block, upscale, res_scale, img_range, rgb_mean
        )
        for block in self.body:
            block.conv1, block.conv2 = SeparableConv(num_feat), SeparableConv(num_feat)
