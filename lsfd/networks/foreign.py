"""Checkpoints that say nothing of their architecture: recognised by their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network, outline
from lsfd.networks.weights import (
    check_fit,
    fit_weights,
    infer_architecture,
    read_tensors,
    to_basicsr_keys,
)

SPANDREL = "spandrel"
"""The type of a network that only spandrel can build."""


def load_foreign(path: Path, key: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Load a network that its weights alone describe.

    EDSR and RCAN become BasicSR's (:func:`lsfd.networks.weights.infer_architecture`), anything
    else is what spandrel recognises.

    Returns:
        The network, from N x 3 x h x w to N x 3 x (scale h) x (scale w), RGB in 0..1, and its
        BasicSR options, or ``{"type": "spandrel", "architecture": NAME}``.

    Raises:
        LsfdError: The file cannot be read, or nobody recognises its weights as a
            super-resolution network for RGB images.
    """
    tensors = read_tensors(path, key)
    options = infer_architecture(tensors)
    if options is None:
        return _load_with_spandrel(tensors, path)
    state = to_basicsr_keys(tensors)
    check_fit(outline(options, str(path)), state, str(path))  # Before memory is taken.
    network = build_network(options, where=str(path))
    fit_weights(network, state, str(path))
    return network, options


def _load_with_spandrel(tensors: dict[str, Tensor], path: Path) -> tuple[nn.Module, dict[str, Any]]:
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError  # Takes a second.

    try:
        found = ModelLoader(device="cpu").load_from_state_dict(tensors)
    except UnsupportedModelError as error:
        raise LsfdError(
            f"{path}: its weights belong to no known architecture; name it and its arguments "
            "(type, num_feat, ...)"
        ) from error
    except Exception as error:  # Recognition reads keys and shapes; odd ones fail anywhere.
        reason = " ".join(str(error).split())[:200]
        raise LsfdError(f"{path}: spandrel cannot load these weights: {reason}") from error
    name = found.architecture.name
    if not isinstance(found, ImageModelDescriptor) or found.purpose != "SR":
        raise LsfdError(f"{path}: {name} with these weights is for {found.purpose}, not for SR")
    if (found.input_channels, found.output_channels) != (3, 3):
        raise LsfdError(
            f"{path}: {name} with these weights maps {found.input_channels} channels to "
            f"{found.output_channels}, but images are RGB"
        )
    # Some of spandrel's networks (RCAN) scale their input in place: the caller's batch.
    found.model.register_forward_pre_hook(_copy_input)
    return found.model, {"type": SPANDREL, "architecture": name}


def _copy_input(_network: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (arguments[0].clone(), *arguments[1:])
