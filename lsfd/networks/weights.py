"""Weights from files of strangers: read without executing code, fitted strictly or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.keys import infer_architecture, to_basicsr_keys
from lsfd.networks.seal import check_seal_of
from lsfd.torch_files import read_torch_file

__all__ = [
    "check_fit",
    "fit_weights",
    "infer_architecture",
    "load_fitting_weights",
    "load_weights",
    "read_state_dict",
    "read_tensors",
    "to_basicsr_keys",
]

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt")
WRAPPERS = ("params_ema", "params", "state_dict", "model")
"""Under which keys training codes keep a state dict, the preferred first."""

_PREFIXES = ("module.", "_orig_mod.")  # Left by DataParallel and torch.compile.
_SHOWN = 4
_MOST_SHARED = 4
"""How often a number of a file may occur in its tensors, on average."""


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a checkpoint's tensors under BasicSR's names, on the CPU.

    Args:
        path: ``.safetensors``, or ``.pth``, ``.pt``, ``.ckpt`` as :func:`torch.save` writes.
        key: Which part of the checkpoint holds the weights; by default ``params_ema``,
            ``params``, ``state_dict`` or ``model``, the first that is there, else the whole.

    Returns:
        Tensors by name. The names of EDSR and RCAN as first published become BasicSR's.

    Raises:
        LsfdError: The file is missing, damaged, holds code, or holds no such weights.
    """
    return to_basicsr_keys(read_tensors(path, key))


def read_tensors(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a checkpoint as :func:`read_state_dict` does, but keep the file's own names."""
    path = Path(path)
    if not path.is_file():
        problem = "is a folder; give a file in it" if path.is_dir() else "there is no such file"
        raise LsfdError(f"{path}: {problem}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        try:
            content: object = load_file(path, device="cpu")
        except (SafetensorError, OSError, ValueError) as error:
            raise LsfdError(f"{path}: is damaged or no safetensors file ({error})") from error
        check_seal_of(path)
    elif suffix in PICKLE_SUFFIXES:
        content = read_torch_file(path, mmap=True)
    else:
        known = ", ".join((".safetensors", *PICKLE_SUFFIXES))
        raise LsfdError(f"{path}: weights are read from {known} files, not '{suffix}'")
    return _tensors(_unwrap(content, path, key), path)


def load_weights(network: nn.Module, path: Path, key: str | None = None) -> None:
    """Load a checkpoint into a network; every key and shape has to match.

    Args:
        network: Keeps its own dtype and device; untouched when the checkpoint does not fit.
        path: As for :func:`read_state_dict`.
        key: As for :func:`read_state_dict`.

    Raises:
        LsfdError: The file cannot be read or does not fit; the message lists which keys are
            missing, unexpected or of another shape.
    """
    fit_weights(network, read_state_dict(path, key), str(path))


def load_fitting_weights(network: nn.Module, path: Path, key: str | None = None) -> list[str]:
    """Load what fits of a checkpoint, such as all but the upsampler of a network of another scale.

    Args:
        network: As for :func:`load_weights`.
        path: As for :func:`read_state_dict`.
        key: As for :func:`read_state_dict`.

    Returns:
        The network's names that the file has not, or has in another shape: they stay as they were.

    Raises:
        LsfdError: The file cannot be read, or nothing of it fits.
    """
    state, wanted = read_state_dict(path, key), network.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in wanted and value.shape == wanted[name].shape
    }
    if not fitting:
        raise LsfdError(f"{path}: nothing of it fits {type(network).__name__}")
    fit_weights(network, {**wanted, **fitting}, str(path))
    return [name for name in wanted if name not in fitting]


def fit_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict strictly, as :func:`load_weights` does; ``source`` is for messages."""
    check_fit(network, state, source)
    broken = [name for name, value in state.items() if not is_finite(value)]
    if broken:
        raise LsfdError(f"{source}: {_listing('not finite (NaN or infinite)', broken)}")
    network.load_state_dict(state)


def is_finite(value: Tensor) -> bool:
    """Whether a tensor of any number format holds neither NaN nor infinity."""
    # torch cannot tell of all formats of 8 bits.
    checked = value.float() if value.is_floating_point() and value.itemsize == 1 else value
    return bool(torch.isfinite(checked).all())


def check_fit(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise an :class:`LsfdError` unless names and shapes are those of ``network``.

    Looks at no value: the network may be on the device ``meta``.
    """
    wanted = network.state_dict()
    shapes = [
        f"{name} is {_shape(state[name])} in the file and {_shape(wanted[name])} in the network"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [
        _listing("missing in the file", [name for name in wanted if name not in state]),
        _listing("unknown to the network", [name for name in state if name not in wanted]),
        _listing("of another shape", shapes),
    ]
    if any(problems):
        raise LsfdError(
            f"{source}: the weights do not fit {type(network).__name__}: "
            f"{'; '.join(filter(None, problems))}"
        )


def _unwrap(content: object, path: Path, key: str | None) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise LsfdError(f"{path}: holds {type(content).__name__}, not a state dict")
    parts = [name for name, value in content.items() if isinstance(value, Mapping)]
    if key is not None:
        if key not in parts:
            here = f"it has {', '.join(map(str, parts))}" if parts else "it has no parts"
            raise LsfdError(f"{path}: has no part '{key}' with weights; {here}")
        return dict(content[key])
    for name in WRAPPERS:
        if name in parts:
            return dict(content[name])
    return content


def _tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    state = dict(content)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise LsfdError(
                f"{path}: '{name}' is {type(value).__name__}, not a tensor; a state dict is "
                f"expected, at the top or under {', '.join(WRAPPERS)} or the key you name"
            )
    if not state:
        raise LsfdError(f"{path}: holds no tensors")
    _check_kinds(state, path)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_kinds(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that no network has, and those that claim more memory than the file has."""
    for name, value in state.items():
        plain = value.layout is torch.strided and value.device.type == "cpu"
        if not plain or value.is_complex() or value.is_quantized or value.is_nested:
            raise LsfdError(f"{path}: '{name}' is not a plain tensor of numbers")
    # One number can be stretched over any shape, and many tensors can share their numbers.
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > _MOST_SHARED * path.stat().st_size:
        raise LsfdError(
            f"{path}: its tensors would take {claimed} bytes, far more than the file has; it is "
            "damaged, or made to fill the memory"
        )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _listing(what: str, names: list[str]) -> str:
    """Return ``"3 missing in the file (a, b, c)"``, cut after a few; empty without names."""
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"
