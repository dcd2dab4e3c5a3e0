"""EDSR in integers of b bits, trained with quantisation in mind; :mod:`lsfd.networks.quantization`.

Quantised are the weights of all convolutions, what goes into each, and what comes out of each (but
for the last one: that is the image), so that integer kernels can do them from end to end:

    image -> Q conv_first Q ->    block: F + Q conv2 Q relu conv1 Q F    -> Q conv_after_body Q
    -> Q conv Q PixelShuffle conv Q PixelShuffle -> conv_last -> image

Q quantises. Skip connections are added in float, so that rounding errors do not add up from block
to block. The first and the last convolution have at least 8 bits, as is usual.

Names are those of BasicSR's EDSR, with ``input_range`` and ``output_range`` beside the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import lsfd.compat  # noqa: F401

from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY

from lsfd.errors import LsfdError
from lsfd.networks.keys import DIV2K_MEAN
from lsfd.networks.quantization import LearnedRange, QuantizedConv2d

FEWEST_BITS, MOST_BITS = 2, 16
_EDGE_BITS = 8


@ARCH_REGISTRY.register()
class QuantizedEDSR(EDSR):
    """EDSR whose convolutions compute as if in integers, for quantisation-aware training."""

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
        bits: int = 8,
    ) -> None:
        """Make a network with fresh weights; the arguments but the last are EDSR's.

        Args:
            num_in_ch: 3.
            num_out_ch: 3.
            num_feat: channels between the blocks.
            num_block: residual blocks.
            upscale: s, a power of 2, or 3.
            res_scale: factor of the residuals.
            img_range: the range of values the network works in.
            rgb_mean: the mean of the three colours, in 0..1.
            bits: b of weights and activations, 2 to 16.

        Raises:
            LsfdError: as many bits cannot be had.
        """
        if not FEWEST_BITS <= bits <= MOST_BITS:
            raise LsfdError(f"bits: must be in {FEWEST_BITS}..{MOST_BITS}, not {bits}")
        super().__init__(
            num_in_ch, num_out_ch, num_feat, num_block, upscale, res_scale, img_range, rgb_mean
        )

        def signed(bits: int = bits) -> LearnedRange:
            return LearnedRange(bits, signed=True, largest=img_range)

        edge = max(bits, _EDGE_BITS)
        self.conv_first: QuantizedConv2d = QuantizedConv2d.of(
            self.conv_first, edge, signed(edge), signed()
        )
        for block in self.body:
            positive = LearnedRange(bits, signed=False, largest=img_range)
            block.conv1 = QuantizedConv2d.of(block.conv1, bits, signed())
            block.conv2 = QuantizedConv2d.of(block.conv2, bits, positive, signed())
        self.conv_after_body: QuantizedConv2d = QuantizedConv2d.of(
            self.conv_after_body, bits, signed(), signed()
        )
        before = signed()
        for index in range(0, len(self.upsample), 2):
            # PixelShuffle keeps the levels of what it is given: only the first has to quantise.
            after = signed(edge if index + 2 == len(self.upsample) else bits)
            self.upsample[index] = QuantizedConv2d.of(
                self.upsample[index], bits, before, after, is_quantized=index > 0
            )
            before = after
        self.conv_last: QuantizedConv2d = QuantizedConv2d.of(
            self.conv_last, edge, before, is_quantized=len(self.upsample) > 0
        )
