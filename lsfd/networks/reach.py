"""How far a network sees to each side, measured."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.trial import evaluating, size_multiple, trial_input

FARTHEST = 128
"""Input pixels; what sees farther counts as seeing everything."""


def reach(network: nn.Module) -> int | None:
    """Return how many input pixels away is the farthest one that an output pixel depends on.

    One input pixel is made NaN, which every sum and product hands on: where the output is not a
    number, the network has seen it. For networks with attention windows it is a window.

    Returns:
        Pixels of the input; None: more than ``FARTHEST``, as in a network that takes means over
        the image, or it cannot be measured in this way.
    """
    if isinstance(network, OpaqueNetwork):
        return network.reach
    along_rows, along_columns = _seen_from(network, False), _seen_from(network, True)
    if along_rows is None or along_columns is None:
        return None
    return max(along_rows, along_columns)


def _seen_from(network: nn.Module, turned: bool) -> int | None:
    """Measure along the rows or, ``turned``, along the columns of a strip one window high."""
    window = size_multiple(network)
    before = -(-(FARTHEST + 1) // window) * window
    length = 2 * before + window
    strip = trial_input(network).new_full((1, 3, window, length), 0.5)
    strip[..., before : before + window] = torch.nan
    seen = _sees(network, strip, turned)
    if seen is None or seen[0] or seen[-1] or not seen.any():
        return None
    places = seen.nonzero()
    return max(before - int(places.min()), int(places.max()) - (before + window - 1), 0)


def _sees(network: nn.Module, strip: Tensor, turned: bool) -> Tensor | None:
    """Return at which input columns the output is not a number."""
    try:
        # Fast convolutions compute blocks of pixels together, and a NaN would fill all of them.
        with warnings.catch_warnings(), evaluating(network):
            warnings.simplefilter("ignore")  # About a format that the switch sets, too.
            with (
                torch.backends.mkldnn.flags(enabled=False),
                torch.backends.cudnn.flags(enabled=False),
            ):
                output = network(strip.mT.contiguous() if turned else strip)
    except Exception:  # A foreign network's forward may dislike such an image in any way.
        return None
    columns = (output.mT if turned else output).isnan().flatten(0, 2).any(dim=0)
    return columns.view(strip.shape[3], -1).any(dim=1)
