"""What an upscaler costs on this machine: seconds and bytes for a megapixel of output."""

from __future__ import annotations

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Turns a uint8 H x W x 3 image into a larger one."""

PAPER_OUTPUT = (720, 1280)
"""Height and width of the output for which papers state multiply-adds."""

_WARM_UP = (24, 24)
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """What one model costs; None: not known, or not measured.

    Attributes:
        parameters: of the network.
        multiply_adds: for an output of 1280 x 720 pixels.
        seconds: for a megapixel of output, from pixels to pixels; the median of several runs.
        bytes: of memory at the peak, beyond the loaded network, for a megapixel of output.
    """

    parameters: int | None = None
    multiply_adds: int | None = None
    seconds: float | None = None
    bytes: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def paper_input(scale: int, multiple: int = 1) -> tuple[int, int]:
    """Return height and width of the input that becomes ``PAPER_OUTPUT``.

    Args:
        scale: of the network.
        multiple: what its input's sides must be a multiple of; they are rounded up.
    """
    height, width = (-(-(side // scale) // multiple) * multiple for side in PAPER_OUTPUT)
    return height, width


def seconds_per_megapixel(
    upscales: Mapping[str, Upscale], scale: int, runs: int
) -> dict[str, float]:
    """Return the median time that each takes for a megapixel of output.

    They run in turn, round after round, so that whatever else the machine does meets all alike.

    Args:
        upscales: by name.
        scale: of all of them.
        runs: timed rounds, after one for warming up.
    """
    image = _noise(*paper_input(scale))
    seconds: dict[str, list[float]] = {name: [] for name in upscales}
    bar = tqdm(total=(runs + 1) * len(upscales), desc="latency", leave=False, disable=None)
    with bar:
        for _ in range(runs + 1):
            for name, upscale in upscales.items():
                start = time.perf_counter()
                upscale(image)
                seconds[name].append(time.perf_counter() - start)
                bar.update()
    megapixels = image.shape[0] * image.shape[1] * scale**2 / 1e6
    return {name: statistics.median(times[1:]) / megapixels for name, times in seconds.items()}


def bytes_per_megapixel(
    load: Callable[..., Upscale], arguments: tuple[Any, ...], scale: int, device: torch.device
) -> float | None:
    """Return how much memory an upscaler takes at the peak for a megapixel of output.

    On a GPU, what PyTorch allocates there. On a CPU what a process of its own takes: in this one,
    memory that was used before and kept would hide it.

    Args:
        load: makes the upscaler; a function that another process can import.
        arguments: of ``load``.
        scale: of the upscaler.
        device: that it runs on.

    Returns:
        None where it cannot be measured: on a CPU without Linux, or if the process ends early.
    """
    if device.type == "cuda":
        return _on_gpu(load(*arguments), scale, device)
    if not _STATUS.exists():
        return None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        threads = torch.get_num_threads()
        try:
            return pool.submit(_on_cpu, load, arguments, scale, threads).result()
        except BrokenProcessPool:
            return None


def _on_gpu(upscale: Upscale, scale: int, device: torch.device) -> float:
    upscale(_noise(*_WARM_UP))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    output = upscale(_noise(*paper_input(scale)))
    taken = torch.cuda.max_memory_allocated(device) - before
    return taken * 1e6 / (output.shape[0] * output.shape[1])


def _on_cpu(
    load: Callable[..., Upscale], arguments: tuple[Any, ...], scale: int, threads: int
) -> float:
    torch.set_num_threads(threads)
    upscale = load(*arguments)
    upscale(_noise(*_WARM_UP))
    before = _status("VmRSS")
    output = upscale(_noise(*paper_input(scale)))
    taken = max(_status("VmHWM") - before, 0)
    return taken * 1e6 / (output.shape[0] * output.shape[1])


def _status(field: str) -> int:
    """Return bytes that Linux counts for this process."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
