"""The ``compress`` section: the candidates of `lsfd compress` and how they are trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lsfd.config.base import Count, Natural, Positive, Section

Share = Annotated[float, Field(gt=0, le=1)]


class Compress(Section):
    """Block-wise compression of the teacher by `lsfd compress`."""

    group_size: Count = 4
    """Residual blocks in a group; what is left over is the last group."""
    depths: list[Natural] = Field(default=[0, 1, 2])
    """How many of a group's blocks candidates keep; all of them is tried in any case."""
    widths: list[Share] = Field(default=[0.25, 0.5])
    """Shares of the blocks' inner channels that candidates keep; 1 is tried in any case."""
    tail_widths: list[Share] = Field(default=[0.125, 0.25, 0.5])
    """The same for the upsampler's channels."""
    patches: Count = 512
    """Patches of datasets.train.gt_size that candidates are trained on."""
    held_out: Count = 32
    """Other patches on which their errors are measured."""
    iterations: Count = 200
    """Optimiser steps of each candidate."""
    batch_size: Count = 8
    """Patches in a step."""
    lr: Positive = 3e-3
    """Learning rate of Adam at the start; it falls to 0 as half a cosine."""
