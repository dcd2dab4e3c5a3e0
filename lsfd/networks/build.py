"""Networks from option files: BasicSR's registry behind arguments that are checked first."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.overrides import TorchFunctionMode

from lsfd.errors import LsfdError, nearest

# They put themselves into the registry.
from lsfd.networks import (  # noqa: F401
    cheap_edsr,
    gated_edsr,
    quantized_edsr,
    slim_edsr,
    sparse_sr,
)
from lsfd.networks.trial import evaluating, trial_input

BASICSR_SR_NETWORKS = frozenset(
    ["ECBSR", "EDSR", "MSRResNet", "RCAN", "RIDNet", "RRDBNet", "SRVGGNetCompact_basicsr", "SwinIR"]
)
"""What of BasicSR's registry maps one image to one image; the rest is video, faces, critics."""

_IMAGE_CHANNELS = frozenset({"num_in_ch", "num_out_ch", "in_channels", "out_channels", "in_chans"})
_REAL_NUMBERS = frozenset({"res_scale"})  # Their default is written as an int.
_COUNTS_OR_NOTHING = frozenset({"upsample_width"})
_SWITCHES = frozenset({"with_idt"})
_WORDS = frozenset({"act_type"})
_LARGEST_COUNT = 4096
_LARGEST_COUNTS = {
    "num_atoms": 1 << 20,  # Dictionaries grow far beyond a network's widths,
    "scale": 16,  # and few weights may ask for very large images.
    "upscale": 16,
}
_MOST_BLOCKS = 1024
_DEPTHS = ("num_group", "num_block", "num_conv")  # Multiplied with each other.


def sr_networks() -> dict[str, type[nn.Module]]:
    """Return the single-image networks of BasicSR's registry, and any that its user registered."""
    return {
        name: network
        for name, network in ARCH_REGISTRY
        if name in BASICSR_SR_NETWORKS or not network.__module__.startswith("basicsr.")
    }


def build_network(options: Mapping[str, Any], where: str = "network_g") -> nn.Module:
    """Build a network with fresh weights from options of BasicSR's shape.

    Args:
        options: ``type`` (a name of :func:`sr_networks`) and that class's constructor arguments,
            such as ``{"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64}``.
        where: What to call the options in error messages, such as ``"network_t"``.

    Returns:
        A module from N x 3 x H x W to N x 3 x (scale H) x (scale W), RGB in 0..1.

    Raises:
        LsfdError: The type is unknown, an argument is unknown, missing or of the wrong kind, or
            the constructor cannot work with the combination.
    """
    if not isinstance(options, Mapping):
        raise LsfdError(f"{where} must be a mapping with a 'type', not {_kind(options)}")
    arguments = dict(options)
    name, network_class = _find_class(arguments.pop("type", None), where)
    _check_arguments(arguments, network_class, name, where)
    try:
        network = network_class(**arguments)
    except Exception as error:  # Whatever a constructor trips over, its arguments are the cause.
        raise LsfdError(f"{where}: {name} cannot be built with {arguments}: {error}") from error
    empty = [key for key, value in network.named_parameters() if value.numel() == 0]
    if empty:
        raise LsfdError(
            f"{where}: {name} with {arguments} has a layer without channels ('{empty[0]}'); "
            "choose a larger width or a smaller reduction"
        )
    return network


def outline(options: Mapping[str, Any], where: str = "network_g") -> nn.Module:
    """Build a network as :func:`build_network` does, on the device ``meta``: shapes, no memory."""
    with torch.device("meta"), _ReadableNumbers():
        return build_network(options, where)


class _ReadableNumbers(TorchFunctionMode):
    """Keeps on the CPU what SwinIR reads while it is built: how often each layer is dropped."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function, on the CPU where its result is read."""
        own = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **{**own, **(kwargs or {})})


def network_scale(network: nn.Module, default: int | None = None) -> int:
    """Return how many times larger the output is than the input, found by one small forward.

    The trial is a grey 1 x 3 x 24 x 24 image (a multiple of the window for window attention), in
    eval mode, without gradients, on the network itself.

    Args:
        network: Takes N x 3 x H x W.
        default: Returned in place of an error where the trial fails.

    Raises:
        LsfdError: The network fails on the trial image or does not enlarge both sides alike.
    """
    with evaluating(network):
        image = trial_input(network)
        try:
            shape = tuple(network(image).shape)
        except Exception as error:  # A foreign network's forward may fail in any way.
            if default is not None:
                return default
            raise LsfdError(
                f"{type(network).__name__} fails on an image of {tuple(image.shape)}: {error}"
            ) from error
    side = image.shape[-1]
    if len(shape) == 4 and shape[:2] == (1, 3) and shape[2] == shape[3] and shape[2] % side == 0:
        return int(shape[2] // side)
    if default is not None:
        return default
    raise LsfdError(
        f"{type(network).__name__} turns an image of {tuple(image.shape)} into {shape}; "
        "a super-resolution network gives 3 channels and a whole multiple of the size"
    )


def _find_class(name: object, where: str) -> tuple[str, type[nn.Module]]:
    known = sr_networks()
    if not isinstance(name, str):
        raise LsfdError(f"{where}.type is missing or no text{nearest('', known)}")
    for spelling in (name, f"{name}_basicsr"):  # BasicSR's registry allows both.
        if spelling in known:
            return name, known[spelling]
    raise LsfdError(f"{where}.type: there is no network '{name}'{nearest(name, known)}")


def _check_arguments(
    arguments: Mapping[str, Any], network_class: type[nn.Module], name: str, where: str
) -> None:
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(network_class).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    for key, value in arguments.items():
        if key not in parameters:
            raise LsfdError(
                f"{where}.{key}: {name} has no such argument{nearest(str(key), parameters)}"
            )
        complaint = _complaint(key, value, parameters[key].default)
        if complaint:
            raise LsfdError(f"{where}.{key}: must be {complaint}, not {_kind(value)}")
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and key not in arguments
    ]
    if missing:
        raise LsfdError(f"{where}: {name} also needs {', '.join(missing)}")
    blocks = _blocks({key: arguments.get(key, each.default) for key, each in parameters.items()})
    if blocks > _MOST_BLOCKS:
        raise LsfdError(
            f"{where}: {name} would have {blocks} blocks, and more than {_MOST_BLOCKS} are not "
            "built; give fewer"
        )


def _blocks(arguments: Mapping[str, Any]) -> int:
    """Return how many blocks checked arguments ask for: each takes time and memory to make."""
    return max(
        math.prod(arguments.get(key, 1) for key in _DEPTHS),
        sum(arguments.get("depths", ())),  # SwinIR's
        len(arguments.get("block_widths", ())),
    )


def _complaint(key: str, value: object, default: object) -> str | None:
    """Say what ``value`` should have been, or ``None`` when it will do.

    BasicSR's constructors carry no annotations: the kind is read off the default, and, for
    arguments without one, off the few names that are no counts.
    """
    if key in _IMAGE_CHANNELS:
        return None if value == 3 and _is_count(value) else "3 (images are RGB)"
    if key in _COUNTS_OR_NOTHING:
        good = value is None or _is_count(value)
        return None if good else f"a whole number in 1..{_LARGEST_COUNT} or nothing"
    if isinstance(default, bool) or key in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, str) or key in _WORDS:
        return None if isinstance(value, str) else "a text"
    if isinstance(default, float) or key in _REAL_NUMBERS:
        return None if _is_real(value) else "a finite number"
    if isinstance(default, (tuple, list)):
        return _complaint_about_items(value, default)
    if isinstance(default, int) or default is inspect.Parameter.empty:
        largest = _LARGEST_COUNTS.get(key, _LARGEST_COUNT)
        return None if _is_count(value, largest) else f"a whole number in 1..{largest}"
    if default is None:
        return None if value is None or _is_real(value) else "a finite number or nothing"
    return "left out (it cannot be set from options)"


def _complaint_about_items(value: object, default: Collection[object]) -> str | None:
    kind: str
    good: Callable[[Any], bool]
    if all(isinstance(item, int) for item in default):
        kind, good = "counts", _is_count
    elif all(isinstance(item, str) for item in default):
        kind, good = "names", _is_name
    else:
        kind, good = "numbers", _is_real
    fits = isinstance(value, (tuple, list)) and all(good(item) for item in value)
    return None if fits else f"a list of {kind}"


def _is_count(value: object, largest: int = _LARGEST_COUNT) -> bool:
    return type(value) is int and 1 <= value <= largest


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _kind(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({type(value).__name__})"
