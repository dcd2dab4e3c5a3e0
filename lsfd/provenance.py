"""Where a result comes from: versions, hardware and the commit of the code."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lsfd

PACKAGES = ("torch", "torchvision", "basicsr", "numpy", "opencv-python")


def versions() -> dict[str, str]:
    """Return the versions of Python, lsfd and the packages that decide a result."""
    found = {"python": platform.python_version(), "lsfd": lsfd.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def stamp() -> dict[str, Any]:
    """Return ``commit``, ``versions`` and ``hardware``, which every record of a result has."""
    return {"commit": commit(), "versions": versions(), "hardware": hardware()}


@cache
def commit() -> str | None:
    """Return the commit of the checkout that runs, with "+changes" if its code is modified."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "lsfd")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> str:
    """Return the processor's name and threads, or the GPUs' names."""
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return f"{count} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads != 1 else ''}"


def processor() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
