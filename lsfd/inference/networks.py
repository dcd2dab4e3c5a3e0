"""Opening whatever file holds a network, or a ready student by its name."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lsfd.networks.card import StudentCard
from lsfd.networks.ready import find_weights
from lsfd.networks.student_file import load_any


def open_network(weights: str | Path) -> tuple[nn.Module, StudentCard]:
    """Return a network, on the CPU and in eval mode, and what its file says about itself.

    Args:
        weights: a file, or the name of a ready student.

    Raises:
        LsfdError: there is neither, or it cannot be read.
    """
    return load_any(find_weights(weights))
