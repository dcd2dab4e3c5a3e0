"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import logging
import pickle
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsfd.atomic import writing
from lsfd.errors import LsfdError

LOGGER = logging.getLogger("lsfd")

FORMAT = 1
SUFFIX = ".state"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that ``path`` holds either the whole of it or what it held before.

    Args:
        path: final name.
        state: tensors, numbers, strings and containers of them.

    Raises:
        LsfdError: the disk is full or the folder cannot be written.
    """
    advice = "free space or change path.experiments_root, then resume with --auto_resume"
    try:
        with writing(path, durable=True, advice=advice) as file:
            torch.save({"format": FORMAT, **state}, file)
    except RuntimeError as error:  # torch's own words for a failed write
        raise LsfdError(f"{path} cannot be written: {error}; {advice}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, never executing code from it.

    Raises:
        LsfdError: it is missing, damaged, or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LsfdError(f"{path}: there is no such checkpoint") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise LsfdError(
            f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise LsfdError(
            f"{path}: not a training state of this version of lsfd; give one from the run's "
            "training_states folder"
        )
    return state


def checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, newest (most iterations) first."""
    numbered = [
        (int(match[1]), path)
        for path in folder.glob(f"*{SUFFIX}")
        if (match := re.fullmatch(r"(\d+)\.state", path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def newest_readable(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return a run's newest checkpoint that can be read, and its path; says which it passes over.

    Raises:
        LsfdError: none can be read.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return load_checkpoint(path), path
        except LsfdError as error:
            LOGGER.warning("%s; trying the checkpoint before it", error)
    raise LsfdError(
        f"{folder}: none of its {len(found)} checkpoints can be read; start anew without "
        "--auto_resume"
    )


def remove_after(folder: Path, iteration: int) -> None:
    """Delete the checkpoints of iterations that a resume from ``iteration`` is going to repeat."""
    for path in checkpoints(folder):
        if int(path.stem) > iteration:
            path.unlink(missing_ok=True)


def remove_old(folder: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest checkpoints."""
    for path in checkpoints(folder)[keep:]:
        path.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """Return the state of the random generators of Python, NumPy and torch."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the random generators back to where :func:`random_state` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
