"""Quantisation-aware training: convolutions that compute as if in integers of b bits.

    q(x; s, lo, hi) = s round(clamp(x / s, lo, hi)),      d round(z) / dz := 1

Weights, W: C_out x C_in x k x k, each output channel with a scale of its own:

    W_q[c] = q(W[c]; max |W[c]| / (2^(b-1) - 1), -(2^(b-1) - 1), 2^(b-1) - 1)

Biases, b: C_out, in steps of what the integers' products are worth, as 32-bit integers are:

    b_q[c] = round(b[c] / (s_x s_W[c])) s_x s_W[c],       s_x, s_W: scales of input and weights

Activations, one learned range t = 2^r for each tensor:

    x_q = q(x; t / 2^(b-1), -2^(b-1), 2^(b-1) - 1)        of either sign
    x_q = q(x; t / (2^b - 1), 0, 2^b - 1)                 after a ReLU

The rounding's gradient is the straight-through estimator's (Bengio et al., arXiv 1308.3432). What
reaches r through s is the gradient of LSQ (Esser et al., arXiv 1902.08153) in the logarithm, as TQT
(Jain et al., arXiv 1903.08066) has it: a range stays positive, and the optimiser moves it by a
factor. Ranges are parameters: so they are averaged with the weights, shared by all processes, and
resumed. LSQ's scaling of that gradient is left out: Adam undoes it.

The operations are plain arithmetic. PyTorch's own ``torch.fake_quantize_*`` give the same values
(the tests compare), but the one for channels knows neither the device meta nor ``torch.compile``
(torch 2.13), and the one that learns its scale is no public name. ``torch.ao.quantization`` is
deprecated; torchao quantises linear layers in place, and convolutions only in exported graphs,
which have no modules to take features from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST = 1e-12  # A channel of zeros has a scale all the same.
_LARGEST_SUM = 2**31 - 1


def fake_quantize(x: Tensor, scale: Tensor, lowest: int, highest: int) -> Tensor:
    """Return q(x; scale, lowest, highest).

    Args:
        x: any shape, float32.
        scale: positive, of a shape that broadcasts against ``x``.
        lowest: lo.
        highest: hi.
    """
    levels = (x / scale).clamp(lowest, highest)
    return (levels + (levels.round() - levels).detach()) * scale


class LearnedRange(nn.Module):
    """Quantises activations in a range that is learned: any shape -> the same.

    Attributes:
        log_range: r, the binary logarithm of the largest magnitude that is kept.
        signed: whether there are values below zero.
        bits: b.
    """

    def __init__(self, bits: int, *, signed: bool, largest: float) -> None:
        """Make a range.

        Args:
            bits: b, at least 2.
            signed: whether values below zero are kept.
            largest: the largest magnitude that is kept at first.
        """
        super().__init__()
        self.bits, self.signed = bits, signed
        self.log_range = nn.Parameter(torch.log2(torch.tensor(float(largest))))

    @property
    def lowest(self) -> int:
        """The lowest level."""
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The highest level."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    def scale(self) -> Tensor:
        """Return s, a scalar."""
        return torch.exp2(self.log_range) / (-self.lowest or self.highest)

    def forward(self, x: Tensor) -> Tensor:
        """Quantise, in float32."""
        return fake_quantize(x.float(), self.scale(), self.lowest, self.highest)


class QuantizedConv2d(nn.Conv2d):
    """A convolution with quantised weights between quantised activations.

    Attributes:
        bits: b of the weights.
        input_range: quantises what comes in; None: it is quantised already.
        output_range: quantises what comes out; None: what follows does.
    """

    bits: int
    input_range: LearnedRange | None
    output_range: LearnedRange | None
    _given: tuple[LearnedRange, ...]

    @classmethod
    def of(
        cls,
        conv: nn.Conv2d,
        bits: int,
        given: LearnedRange,
        output_range: LearnedRange | None = None,
        *,
        is_quantized: bool = False,
    ) -> QuantizedConv2d:
        """Return a convolution with the weights of another one; they share them.

        Args:
            conv: the other one, with a bias.
            bits: b of the weights.
            given: the range of what comes in.
            output_range: see the class.
            is_quantized: whether what comes in has the levels of ``given`` already, because that
                range belongs to what comes before.
        """
        assert isinstance(conv.padding, tuple)
        with torch.device("meta"):  # Weights drawn here would go unused.
            made = cls(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,  # type: ignore[arg-type]
                conv.stride,  # type: ignore[arg-type]
                conv.padding,  # type: ignore[arg-type]
                groups=conv.groups,
            )
        made.weight, made.bias, made.bits = conv.weight, conv.bias, bits
        made.input_range = None if is_quantized else given
        made.output_range = output_range
        made._given = (given,)  # In a tuple, it does not become a part of this module.
        return made

    @property
    def given(self) -> LearnedRange:
        """The range of what comes in, wherever it is quantised."""
        return self._given[0]

    @property
    def highest(self) -> int:
        """The highest level of the weights; the lowest is its negative."""
        return 2 ** (self.bits - 1) - 1

    def weight_scale(self) -> Tensor:
        """Return every output channel's scale: C_out x 1 x 1 x 1, without gradient."""
        largest = self.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
        return largest.clamp_min(_SMALLEST) / self.highest

    def bias_scale(self) -> Tensor:
        """Return what one step of each output channel's sum is worth: C_out, without gradient."""
        return self.given.scale().detach() * self.weight_scale().flatten()

    def quantized_weight(self) -> Tensor:
        """Return W_q."""
        return fake_quantize(self.weight, self.weight_scale(), -self.highest, self.highest)

    def quantized_bias(self) -> Tensor:
        """Return b_q."""
        assert self.bias is not None
        return fake_quantize(self.bias, self.bias_scale(), -_LARGEST_SUM, _LARGEST_SUM)

    def forward(self, input: Tensor) -> Tensor:
        """Quantise, convolve, quantise: N x C_in x h x w -> N x C_out x h' x w'."""
        if self.input_range is not None:
            input = self.input_range(input)
        weight, bias = self.quantized_weight(), self.quantized_bias()
        output = functional.conv2d(
            input, weight, bias, self.stride, self.padding, groups=self.groups
        )
        return output if self.output_range is None else self.output_range(output)
