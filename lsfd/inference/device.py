"""Choosing the device and the number format a network runs in."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from lsfd.errors import LsfdError, nearest

Precision = Literal["fp32", "bf16", "fp16", "auto"]


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is the current GPU where there is one, otherwise the CPU.

    Raises:
        LsfdError: no such kind of device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise LsfdError(f"device '{name}' is unknown; valid: auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise LsfdError(
                f"device '{name}' is not there: PyTorch sees {count} GPUs on this machine; "
                "use 'auto' or 'cpu'"
            )
    return device


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the number format for ``torch.autocast``, or None for plain float32.

    ``auto`` takes bf16 only where the processor or GPU computes in it, because emulated bf16 is
    slower than float32; on older GPUs it takes fp16, on older processors float32.

    Raises:
        LsfdError: unknown precision, or fp16 on a CPU.
    """
    if precision not in get_args(Precision):
        hint = nearest(precision, get_args(Precision))
        raise LsfdError(f"precision '{precision}' is unknown{hint}")
    if precision == "bf16":
        return torch.bfloat16
    if precision == "fp16":
        if device.type == "cpu":
            raise LsfdError("precision 'fp16' needs a GPU; on a CPU use 'auto', 'bf16' or 'fp32'")
        return torch.float16
    if precision == "auto":
        if device.type == "cuda":
            with torch.cuda.device(device):
                native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        return torch.bfloat16 if _cpu_computes_bf16() else None
    return None


def _cpu_computes_bf16() -> bool:
    """Whether the processor has bf16 instructions that PyTorch knows of."""
    # Private in torch.cpu, and not in every version from 2.4 on: an unknown answer counts as no.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
