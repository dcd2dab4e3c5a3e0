"""Pictures of where the methods look (LSFD's attention, say), saved at validation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsfd.evaluation.sets import BenchmarkSet
from lsfd.networks.trial import evaluating, size_multiple
from lsfd.reporting.attention import save_attention
from lsfd.training.model import LSFDModel
from lsfd.training.observation import observe
from lsfd.training.phases import phase_at

LARGEST = 96
"""Longest side, in low-resolution pixels, of what is shown of an image."""

Image = NDArray[np.uint8]


def save_maps(model: LSFDModel, sets: list[BenchmarkSet], iteration: int, folder: Path) -> None:
    """Save what the methods show of the middle of the first image of each set.

    Nothing is saved in a method's stage: the student may not have run there.

    Args:
        model: in training; nothing of it changes.
        sets: low-resolution images and their originals.
        iteration: counted from 1; methods that take no part in it show nothing.
        folder: takes ``<set>/<image>_<method>_<map>.png``.
    """
    if phase_at(model.phases, iteration).stage is not None:
        return
    networks = [model.net_g, *model.teachers]
    multiple = math.lcm(*(size_multiple(network) for network in networks))
    for each in sets:
        image, lq, hr = next(iter(each))
        lq, hr = _middle(lq, LARGEST, multiple, 1), _middle(hr, LARGEST, multiple, each.scale)
        if lq.size == 0:
            continue  # Smaller than a window.
        for (method, name), shown in maps_of(model, lq, hr, iteration).items():
            path = folder / each.name / f"{image}_{method}_{name.replace(':', '-')}.png"
            save_attention(path, shown[0, 0].float().cpu().numpy(), hr, f"{method}, {name}")


def maps_of(
    model: LSFDModel, lq: Image, hr: Image, iteration: int
) -> dict[tuple[str, str], Tensor]:
    """Return all maps of an image, 1 x 1 x h x w each, by the names of method and map.

    Args:
        model: nothing of it changes.
        lq: uint8, h x w x 3.
        hr: its original, uint8, sh x sw x 3.
        iteration: counted from 1; methods that take no part in it show nothing.
    """
    with evaluating(model.step):
        small, large = (_batched(image, model.device) for image in (lq, hr))
        batch = observe(model, small, large, iteration)
        active = model.step.active(phase_at(model.phases, iteration), iteration)
        return {
            (method, name): shown
            for method, distiller in active.items()
            for name, shown in distiller.maps(batch).items()
        }


def _batched(image: Image, device: torch.device) -> Tensor:
    """Return H x W x 3 as 1 x 3 x H x W in 0..1."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255


def _middle(image: Image, largest: int, multiple: int, scale: int) -> Image:
    """Return the middle of an image; all sizes are in low-resolution pixels."""
    slices = []
    for side in image.shape[:2]:
        low = side // scale
        size = min(low, largest) // multiple * multiple
        start = (low - size) // 2
        slices.append(slice(start * scale, (start + size) * scale))
    return np.ascontiguousarray(image[slices[0], slices[1]])
