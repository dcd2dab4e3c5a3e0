"""Networks as TorchScript programs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import torch
from torch import nn

from lsfd.errors import LsfdError
from lsfd.inference.quiet import quiet, root_cause
from lsfd.networks.trial import trial_input


def to_torchscript(network: nn.Module, metadata: Mapping[str, str]) -> tuple[bytes, nn.Module]:
    """Trace a network; it takes N x 3 x h x w and gives N x 3 x sh x sw, RGB in 0..1, float32.

    Args:
        network: on the CPU, in eval mode.
        metadata: kept in the file beside the program, under ``extra/``.

    Returns:
        The file's contents, and the program as it is read from them.

    Raises:
        LsfdError: it cannot be traced.
    """
    try:
        with quiet(), torch.no_grad():  # Baked-in sizes show when the program is compared.
            traced = torch.jit.trace(network, trial_input(network), check_trace=False)
            file = io.BytesIO()
            torch.jit.save(traced, file, _extra_files=dict(metadata))
            data = _without_positions(file.getvalue())
            return data, torch.jit.load(io.BytesIO(data), map_location="cpu")
    except Exception as error:  # A foreign network's forward may be beyond it in any way.
        raise LsfdError(
            f"{type(network).__name__} cannot be exported to TorchScript: {root_cause(error)}"
        ) from error


def _without_positions(program: bytes) -> bytes:
    """Return a program without what it notes about where the code lies on this machine."""
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as given, zipfile.ZipFile(copy, "w") as kept:
        for entry in given.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(entry.filename), given.read(entry))
    return copy.getvalue()
