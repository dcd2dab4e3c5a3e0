"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import torch

from lsfd.atomic import writing
from lsfd.errors import LsfdError
from lsfd.torch_files import read_torch_file
from lsfd.training.records import RESUME

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
    with writing(path, durable=True, advice=RESUME, make_folder=False) as file:
        noting: Any = _Noting(file)
        try:
            torch.save({"format": FORMAT, **state}, noting)
        except RuntimeError as error:  # torch's own words for a failed write
            if noting.error is None:
                raise
            raise noting.error from error


class _Noting:
    """A file that keeps the error of a failed write, which torch forgets."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, never executing code from it.

    Raises:
        LsfdError: it is missing, damaged (checksums are compared), or not one of ours.
    """
    state = read_torch_file(path)
    if not _is_ours(state):
        raise LsfdError(
            f"{path}: not a training state of this version of lsfd; give one from the run's "
            "training_states folder"
        )
    return state


def _is_ours(state: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a file's content has the form of a checkpoint."""
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        return False
    parts = {name: state.get(name) for name in ("iteration", "model", "random", "scores")}
    return [type(part) for part in parts.values()] == [int, dict, list, dict]


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
    """Put the random generators back to where :func:`random_state` found them.

    Raises:
        LsfdError: ``state`` is not what it returned.
    """
    try:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        keys, position, has_gauss, cached = state["numpy"]
        words = keys.numpy().astype(np.uint32)
        np.random.set_state(("MT19937", words, position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LsfdError(
            f"the checkpoint's state of the random generators cannot be used ({error}); resume "
            "from another checkpoint"
        ) from error
