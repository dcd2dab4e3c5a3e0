"""Files that ``torch.save`` wrote: read without executing code, and not believed when damaged.

PyTorch writes a checksum beside every tensor (the zip archive's CRC32) and never looks at it: a bit
that flipped on a disk would go on as a weight. Here all checksums are compared first. Files from
before torch 1.6 are no archives and have none.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch

from lsfd.errors import LsfdError

_FETCH = "fetch or save it again"


def read_torch_file(path: Path, *, mmap: bool = False) -> object:
    """Return what a file holds, tensors on the CPU; nothing in it is executed.

    Args:
        path: the file.
        mmap: whether tensors may stay in the file until they are used, where it is a zip archive.

    Raises:
        LsfdError: it is missing, damaged, holds code, or is something else.
    """
    if not path.is_file():
        problem = "is a folder; give a file in it" if path.is_dir() else "there is no such file"
        raise LsfdError(f"{path}: {problem}")
    try:
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What is wrong is said once, below.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)
    except LsfdError:
        raise
    except Exception as error:  # A damaged file fails in the parser in any way it likes.
        raise LsfdError(f"{path}: {_reason(error)}") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that is damaged, or that torch.save did not write."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.endswith("/constants.pkl") for name in names):
            raise LsfdError(
                f"{path}: cannot be read as a checkpoint: it is a TorchScript program, and only "
                "weights are read"
            )
        # Packed, a small file could fill the memory; of two entries of one name, one is not looked
        # at here.
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        # Of the same bytes many entries can be made, which would be read again and again.
        shared = sum(entry.file_size for entry in entries) > path.stat().st_size
        if packed or shared or len(set(names)) < len(names):
            raise LsfdError(
                f"{path}: cannot be read as a checkpoint: its contents are not what torch.save "
                "writes"
            )
        damaged = archive.testzip()
    if damaged is not None:
        raise LsfdError(
            f"{path}: is damaged: the checksum of {damaged} does not fit its content; {_FETCH}"
        )


def _reason(error: Exception) -> str:
    text = str(error).strip()
    code = re.search(r"GLOBAL:?\s+([\w.]+)", text)
    if isinstance(error, pickle.UnpicklingError) and code:
        return (
            f"refused, because it contains code ({code[1]}) that loading would execute; only "
            "tensors are read: where you trust the file, save its state dict alone, best as "
            ".safetensors"
        )
    reason = text.split("\n")[0] or type(error).__name__
    if "weights_only" in reason:  # torch's advice to load it unsafely is none for us.
        reason = "its contents are not what torch.save writes"
    return f"cannot be read as a checkpoint: {reason}"
