"""A finished network is one self-describing ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lsfd.atomic import write_bytes
from lsfd.errors import LsfdError
from lsfd.networks.build import build_network, network_scale, outline
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.foreign import load_foreign
from lsfd.networks.seal import sealed, with_seal
from lsfd.networks.weights import check_fit, fit_weights, load_weights, read_state_dict

__all__ = ["StudentCard", "load_any", "read_student", "save_student"]

SUFFIX = ".safetensors"


def save_student(
    path: Path,
    network: nn.Module | Mapping[str, Tensor],
    card: StudentCard,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a network, its card and a digest of both; equal input gives equal bytes.

    Whatever is written can be loaded again: the weights are fitted to the card's architecture
    first. The file appears in one step, or not at all.

    Args:
        path: A name ending in ``.safetensors``; its folder is made where there is none.
        network: The network, or its state dict.
        card: Its description.
        dtype: float32 or float16; what the weights are stored in (integers stay integers).

    Raises:
        LsfdError: The card does not describe these weights, a weight is not finite in ``dtype``,
            or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise LsfdError(f"{path}: a student is saved under a name that ends in {SUFFIX}")
    if dtype not in (torch.float32, torch.float16):
        raise LsfdError(f"{path}: a student is stored in float32 or float16, not in {dtype}")
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for name, value in state.items()
    }
    _build(card, tensors, str(path))
    write_bytes(path, sealed(save(tensors, with_seal(card.to_metadata()))), durable=True)


def read_student(path: Path) -> tuple[nn.Module, StudentCard]:
    """Load a file that :func:`save_student` wrote, without any option file.

    Returns:
        The network (float32, on the CPU, in eval mode) and its card.

    Raises:
        LsfdError: The file is missing or damaged (its digest, if it has one, is compared), is no
            student, or its weights are not those of the network that it describes.
    """
    path = Path(path)
    state = read_state_dict(path)
    try:
        card = StudentCard.from_metadata(_metadata(path))
    except LsfdError as error:
        raise LsfdError(f"{path}: {error}") from error
    return _build(card, state, str(path)), card


def load_any(
    path: Path,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    where: str = "network_g",
) -> tuple[nn.Module, StudentCard]:
    """Load a network from a student file or any checkpoint.

    Args:
        path: The file.
        options: The network's BasicSR options; without them the file has to describe itself
            (:func:`read_student`) or to be recognised by its weights
            (:func:`lsfd.networks.foreign.load_foreign`).
        key: Which part of a checkpoint holds the weights, see
            :func:`lsfd.networks.weights.read_state_dict`.
        where: What to call the options in error messages.

    Returns:
        The network (on the CPU, in eval mode) and a card, of which only architecture, scale and
        a note are filled where the file says no more.

    Raises:
        LsfdError: The file cannot be read, recognised, or does not fit the options.
    """
    path = Path(path)
    with torch.random.fork_rng(devices=[]):  # Weights drawn here are overwritten; see _build.
        if options is not None:
            network = build_network(options, where)
            load_weights(network, path, key)
            architecture = dict(options)
        elif METADATA_KEY in _metadata(path):
            return read_student(path)
        else:
            network, architecture = load_foreign(path, key)
    network.eval()
    card = StudentCard(
        architecture=architecture, scale=network_scale(network), note=f"read from {path.name}"
    )
    return network, card


def _build(card: StudentCard, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """Build the network of a card around weights, leaving the random state as it was.

    Saving must not change the random numbers that the rest of a training run draws.
    """
    where = f"{source}: architecture"
    with torch.random.fork_rng(devices=[]):
        _check_size(card, state, source)
        network = build_network(card.architecture, where)
    fit_weights(network, state, source)
    network.eval()
    scale = network_scale(network)
    if scale != card.scale:
        raise LsfdError(f"{source}: says that it enlarges x{card.scale}, but it enlarges x{scale}")
    return network


def _check_size(card: StudentCard, state: Mapping[str, Tensor], source: str) -> None:
    """Compare shapes before memory is taken: a damaged card may claim a network of any size."""
    check_fit(outline(card.architecture, f"{source}: architecture"), state, source)


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix.lower() != SUFFIX or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise LsfdError(f"{path}: is damaged or no safetensors file ({error})") from error
