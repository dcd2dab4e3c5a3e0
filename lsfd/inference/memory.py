"""How much memory there is, and what it looks like when it runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CPU_LIMIT = 768 << 20
"""Bytes that a network may take on a CPU: larger tiles would hardly be faster."""

_SCARCE = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a device."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_system_memory()


def free_system_memory() -> int:
    """Return the bytes that a process can still have; 0: unknown."""
    return min((available for available in (_system(), _control_group()) if available), default=0)


def budget(device: torch.device) -> int:
    """Return the bytes that a network may take: half of what is free, on a CPU ``CPU_LIMIT``."""
    return free_memory(device) // 2 if device.type == "cuda" else cpu_budget()


def cpu_budget() -> int:
    """Return the bytes that a network may take on the CPU."""
    return min(free_system_memory() // 2 or CPU_LIMIT, CPU_LIMIT)


def is_scarce(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, on a GPU or a CPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        phrase in str(error).lower() for phrase in _SCARCE
    )


@contextmanager
def noticing_scarcity(found: list[str]) -> Iterator[None]:
    """Add what an error says about too little memory to ``found`` instead of raising it.

    The error itself is let go, and with it what its frames hold.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_scarce(error):
            raise
        found.append(str(error).split("\n")[0])


def _system() -> int | None:
    """What Linux says can be had without swapping; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def _control_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take (cgroup 2, then 1); None without a limit.

    Copies of files that the system keeps in memory count as used there, and make room when asked.
    """
    for limit, used, files in (
        ("memory.max", "memory.current", ("active_file", "inactive_file")),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
        ),
    ):
        try:
            free = int((root / limit).read_text()) - int((root / used).read_text())
            lines = (root / used).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # Not there, or "max".
            continue
        values = dict(line.split(" ", 1) for line in lines if " " in line)
        return max(free + sum(int(values.get(name, 0)) for name in files), 1)
    return None
