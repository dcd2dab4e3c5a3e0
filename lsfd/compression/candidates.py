"""Candidates: smaller forms of a teacher's parts, trained apart, kept on disk with their error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lsfd.atomic import write_bytes
from lsfd.compression.parts import Part, Shape, Split
from lsfd.errors import LsfdError

_METADATA_KEY = "lsfd_candidate"

Shapes: TypeAlias = Mapping[str, Sequence[Shape]]
"""The candidates of each part, by its name."""


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained.

    Attributes:
        iterations: optimiser steps.
        batch_size: patches in a step.
        lr: learning rate of Adam at the start; it falls to 0 as half a cosine.
        seed: of the choice of patches, the same for all candidates.
        dtype: of the forward pass, for autocast; None: float32.
        channels_last: whether tensors are laid out so.
    """

    iterations: int
    batch_size: int
    lr: float
    seed: int
    dtype: torch.dtype | None = None
    channels_last: bool = True


@dataclass(frozen=True)
class Candidate:
    """A trained form of a part.

    Attributes:
        shape: what it keeps.
        module: on the CPU.
        error: mean |T_B(x) - T(x)| over held-out patches, RGB in 0..1.
    """

    shape: Shape
    module: nn.Module
    error: float


class CandidateFolder:
    """Where candidates of one teacher, trained on the same data in the same way, are kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, part: Part, shape: Shape) -> Path:
        """Return a candidate's file."""
        name = part.name.replace(" ", "_")
        return self.root / f"{name}_depth{shape.depth}_width{shape.width}.safetensors"

    def holds(self, part: Part, shape: Shape) -> bool:
        """Tell whether there is nothing to train: the teacher's own needs no file."""
        return shape == part.full or self.path(part, shape).exists()

    def write(self, part: Part, candidate: Candidate) -> None:
        """Keep a candidate."""
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in candidate.module.state_dict().items()
        }
        metadata = {_METADATA_KEY: json.dumps({"error": candidate.error})}
        write_bytes(self.path(part, candidate.shape), save(tensors, metadata))

    def read(self, part: Part, shape: Shape) -> Candidate:
        """Return a candidate that the folder holds.

        Raises:
            LsfdError: its file is damaged.
        """
        if shape == part.full:
            return Candidate(shape, part.module, 0.0)
        path, module = self.path(part, shape), part.cut(shape)
        try:
            with safe_open(path, framework="pt") as file:
                error = float(json.loads(file.metadata()[_METADATA_KEY])["error"])
                names = file.keys()
                module.load_state_dict({name: file.get_tensor(name) for name in names})
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise LsfdError(
                f"{path} is damaged ({' '.join(str(problem).split())[:200]}); delete it and it is "
                "trained again"
            ) from problem
        return Candidate(shape, module.eval().requires_grad_(False), error)


def missing(split: Split, shapes: Shapes, folder: CandidateFolder) -> list[tuple[int, Shape]]:
    """Return what is to be trained: number of the part, and shape."""
    return [
        (index, shape)
        for index, part in enumerate(split.parts)
        for shape in shapes[part.name]
        if not folder.holds(part, shape)
    ]


def train_missing(
    split: Split,
    shapes: Shapes,
    folder: CandidateFolder,
    patches: Tensor,
    held_out: Tensor,
    recipe: Recipe,
    on_step: Callable[[Part, Shape], object],
) -> Iterator[tuple[Part, Candidate]]:
    """Train every candidate that the folder lacks; yield each when it is trained and written.

    A candidate depends on none of the others: what was stopped goes on to the same result.

    Args:
        split: the teacher, on the device where to train.
        shapes: the candidates of each part.
        folder: where they are kept.
        patches: to train on, P x 3 x h x w, RGB in 0..1.
        held_out: to measure the errors on, Q x 3 x h x w.
        recipe: how to train.
        on_step: called after each optimiser step.

    Raises:
        LsfdError: a candidate's weights became infinite, or its file cannot be written.
    """
    index = -1
    for number, shape in missing(split, shapes, folder):
        part = split.parts[number]
        if number != index:
            index = number
            lesson = Lesson.of(split, index, patches, recipe, recipe.dtype)
            test = Lesson.of(split, index, held_out, recipe, None)
            images = finished_images(split, part.module, test, recipe)
        module = part.cut(shape).to(patches.device)
        train_candidate(module, lesson, recipe, partial(on_step, part, shape))
        error = mean_difference(finished_images(split, module, test, recipe), images)
        candidate = Candidate(shape, module, error)
        if not math.isfinite(candidate.error):
            raise LsfdError(
                f"compress.lr: {part.name} with {shape} diverged; lower it (it is {recipe.lr:g})"
            )
        folder.write(part, candidate)
        yield part, candidate


@dataclass(frozen=True)
class Lesson:
    """What the teacher gives to a part for some images, and what the part makes of it.

    Attributes:
        index: of the part.
        images: N x 3 x h x w.
        given: N x C x h x w.
        wanted: what the part gives, N x ...
    """

    index: int
    images: Tensor
    given: Tensor
    wanted: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, split: Split, index: int, images: Tensor, recipe: Recipe, dtype: torch.dtype | None
    ) -> Lesson:
        """Compute it, under autocast to a dtype, if one is given."""
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        module = split.parts[index].module
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            given = [split.given(index, batch) for batch in images.split(recipe.batch_size)]
            wanted = [module(feature) for feature in given]
        return cls(index, images, torch.cat(given), torch.cat(wanted))


def train_candidate(
    module: nn.Module, lesson: Lesson, recipe: Recipe, on_step: Callable[[], object]
) -> None:
    """Minimise mean |B(given) - wanted| in place; one without weights stays as it is."""
    weights = list(module.parameters())
    if not weights:
        return
    if recipe.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(weights, recipe.lr)
    device = lesson.given.device
    # Gradients of a mean over a batch of features are too small for float16.
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.dtype is torch.float16)
    for step, picked in enumerate(_batches(len(lesson.given), recipe)):
        rate = recipe.lr * (1 + math.cos(math.pi * step / recipe.iterations)) / 2
        optimizer.param_groups[0]["lr"] = rate
        picked = picked.to(device)
        with torch.autocast(device.type, recipe.dtype, enabled=recipe.dtype is not None):
            output = module(lesson.given[picked])
        loss = (output.float() - lesson.wanted[picked].float()).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        on_step()


@torch.no_grad()
def finished_images(split: Split, module: nn.Module, test: Lesson, recipe: Recipe) -> Tensor:
    """Return what the teacher makes of the images with a module in place of the lesson's part.

    In float32: rounding would drown small differences.
    """
    batches = zip(
        test.given.split(recipe.batch_size), test.images.split(recipe.batch_size), strict=True
    )
    return torch.cat(
        [split.finished(test.index, module(given), images) for given, images in batches]
    )


@torch.no_grad()
def image_error(split: Split, network: nn.Module, images: Tensor, recipe: Recipe) -> float:
    """Return mean |S(x) - T(x)| of a whole network S, in float32."""
    batches = images.split(recipe.batch_size)
    return mean_difference(
        torch.cat([network(batch) for batch in batches]),
        torch.cat([split.network(batch) for batch in batches]),
    )


def mean_difference(ours: Tensor, its: Tensor) -> float:
    """Return mean |ours - its|."""
    return float((ours - its).abs().mean(dtype=torch.float64))


def _batches(count: int, recipe: Recipe) -> Iterator[Tensor]:
    """Yield the numbers of each step's patches: every patch once before any comes again."""
    generator = torch.Generator().manual_seed(recipe.seed)
    waiting = torch.empty(0, dtype=torch.long)
    for _ in range(recipe.iterations):
        while len(waiting) < recipe.batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[: recipe.batch_size]
        waiting = waiting[recipe.batch_size :]
