"""Teachers: frozen networks, always with trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lsfd.errors import LsfdError
from lsfd.networks.ready import find_weights
from lsfd.networks.student_file import load_any

RECOGNISE = ("auto", "spandrel")
"""Types that ask to find the architecture out from the file."""


def load_teacher(
    options: Mapping[str, Any] | None,
    path: Path | None,
    where: str = "network_t",
    key: str | None = None,
) -> nn.Module:
    """Load a network to learn from.

    Args:
        options: BasicSR options (``{"type": "RCAN", ...}``); ``None`` or ``{"type": "auto"}``
            (or ``"spandrel"``) to find the architecture out: from a student file of ours, from
            the weights of an EDSR or RCAN, or from any network that spandrel recognises.
        path: The checkpoint, or the name of a ready student; a teacher without one is an error,
            never a random network.
        where: What to call the options in error messages.
        key: Which part of the checkpoint holds the weights.

    Returns:
        From N x 3 x h x w to N x 3 x (scale h) x (scale w), RGB in 0..1; in eval mode, on the
        CPU, no parameter requires a gradient.

    Raises:
        LsfdError: There is no checkpoint, it cannot be read, or it does not fit the options.
    """
    if path is None:
        raise LsfdError(
            f"{where}: a teacher needs trained weights; give their file under "
            "path.pretrain_network_t"
        )
    if options is not None and options.get("type") in RECOGNISE:
        surplus = [name for name in options if name != "type"]
        if surplus:
            raise LsfdError(
                f"{where}.{surplus[0]}: type '{options['type']}' takes the arguments from the "
                "file; remove it, or name the architecture as the type"
            )
        options = None
    teacher, _ = load_any(find_weights(path), options, key, where)
    return teacher.requires_grad_(False)
