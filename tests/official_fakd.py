"""What FAKD's official code gives for these features and images; it compares other methods too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from distillation import random_batch, setting
from torch import Tensor

from lsfd.distillers import DistillationBatch

GOLDEN = Path(__file__).parent / "golden"


def official(name: str, file: str = "fakd.json") -> Tensor:
    """A number of the official code."""
    value: float = json.loads((GOLDEN / file).read_text(encoding="utf-8"))[name]
    return torch.tensor(value)


def official_batch(student_channels: int, teacher_channels: int) -> DistillationBatch:
    """The batch that the official code was run on, for ``setting`` of these channels."""
    batch = random_batch(setting(student_channels, teacher_channels))
    first = 0 if student_channels == 4 else 5
    images = [torch.rand(3, 3, 12, 14, generator=_generator(seed)) for seed in (20, 21, 22)]
    return replace(
        batch,
        student=images[0],
        teachers=[images[1]],
        gt=images[2],
        student_features={f"s{i}": _feature(first + i, student_channels) for i in range(3)},
        teacher_features=[{f"t{i}": _feature(10 + i, teacher_channels) for i in range(3)}],
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _feature(seed: int, channels: int) -> Tensor:
    return 2 * torch.rand(3, channels, 6, 7, generator=_generator(seed)) - 1
