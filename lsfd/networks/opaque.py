"""Networks that cannot be looked into."""

from __future__ import annotations

from torch import nn


class OpaqueNetwork(nn.Module):
    """A network without layers, such as a file that a runtime computes.

    What is measured of other networks, it says itself.

    Attributes:
        multiple: what height and width must be a multiple of, see
            :func:`lsfd.networks.trial.size_multiple`.
        reach: input pixels that it sees to each side, see :func:`lsfd.networks.reach.reach`.
        bytes_per_pixel: of memory, see :func:`lsfd.inference.footprint.bytes_per_pixel`.
    """

    def __init__(self, multiple: int, reach: int | None, bytes_per_pixel: int) -> None:
        super().__init__()
        self.multiple = multiple
        self.reach = reach
        self.bytes_per_pixel = bytes_per_pixel
