"""Features by name: a network that hands back, beside its output, what chosen modules gave."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lsfd.errors import LsfdError, nearest
from lsfd.networks.stages import auto_taps
from lsfd.networks.trial import evaluating, on_lr_grid, trial_input

INPUT_SUFFIX = ":input"


@dataclass
class _Store:
    """Where hooks put features; ``None`` between forwards, so that nothing outlives one."""

    features: dict[str, Tensor] | None = None
    replace: Mapping[str, Tensor] | None = None


@dataclass
class _Recorder:
    """A hook on one module; a class, not a closure, so that copies write to the copied store."""

    name: str
    store: _Store

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], output: object = None
    ) -> Tensor | None:
        """Keep the feature; what is returned takes its place in the network."""
        value = (args[0] if args else None) if self.name.endswith(INPUT_SUFFIX) else output
        if self.store.features is None or not isinstance(value, Tensor):
            return None
        substitute = (self.store.replace or {}).get(self.name)
        if substitute is not None:
            value = substitute.to(value.dtype)
        # BasicSR adds skips in place to what a module returned: only a copy keeps its value.
        self.store.features[self.name] = value.clone()
        return None if substitute is None else value.clone()


class TappedNetwork(nn.Module):
    """A network whose forward also returns the features at its taps.

    A tap is the path of a module as in ``named_modules()`` (``"body.5"``) for that module's
    output, or the path and ``":input"`` for its first input. The feature is the value at the
    moment when the module returned (or was called), whatever is later done to it in place, and
    carries gradients. Of a module that runs several times the last run counts. Hooks are placed
    once, here, and record only while this object's own forward runs: the bare ``network`` and
    copies of it behave as if they had none.

    Under ``torch.compile`` and ``DistributedDataParallel`` wrap this object, not ``network``.

    Attributes:
        network: The network itself, with its own state dict.
        taps: The names, without repetitions, in the order of the returned dict.
    """

    def __init__(self, network: nn.Module, taps: Sequence[str]) -> None:
        """Place the hooks.

        Args:
            network: From N x 3 x H x W to N x 3 x (scale H) x (scale W).
            taps: Names of taps; may be empty.

        Raises:
            LsfdError: The network has no module of that name.
        """
        super().__init__()
        check_tap_names(network, taps)
        self.network = network
        self.taps = tuple(dict.fromkeys(taps))
        self._store = _Store()
        self._handles = [self._place_hook(name) for name in self.taps]

    def forward(
        self,
        x: Tensor,
        replace: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the network's output and the features by tap name.

        Args:
            x: Low-resolution images, N x 3 x h x w, RGB in 0..1.
            replace: Features, N x C x h x w, that take the place of what the network computes at
                these taps; what comes after goes on from them. What the network computed there
                is in vain, long skips around the tap stay as they are.
            inputs: Further arguments of the network's forward, by name.

        Raises:
            LsfdError: A tapped module did not run, or gave something other than a tensor.
        """
        if not self.taps:
            return self.network(x, **(inputs or {})), {}
        features: dict[str, Tensor] = {}
        self._store.features, self._store.replace = features, replace
        try:
            output = self.network(x, **(inputs or {}))
        finally:
            self._store.features = self._store.replace = None
        for name in self.taps:
            if name not in features:
                raise LsfdError(
                    f"tap '{name}' gave no feature: {type(self.network).__name__} does not run "
                    "that module, or it gives no tensor"
                )
        return output, {name: features[name] for name in self.taps}

    def remove(self) -> None:
        """Take the hooks off the network; this object has no taps afterwards."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.taps = ()

    def _place_hook(self, name: str) -> RemovableHandle:
        module = self.network.get_submodule(name.removesuffix(INPUT_SUFFIX))
        recorder = _Recorder(name, self._store)
        if name.endswith(INPUT_SUFFIX):
            return module.register_forward_pre_hook(recorder)
        return module.register_forward_hook(recorder)


def check_tap_names(network: nn.Module, taps: Sequence[str], whose: str = "") -> None:
    """Raise an :class:`LsfdError` for a tap that names no module of ``network``.

    Args:
        network: Where the modules are looked up.
        taps: Module paths, with or without ``":input"``.
        whose: Put before the network's class in the message, such as ``"teacher "``.
    """
    valid = {name for name, _ in network.named_modules() if name}
    for tap in taps:
        name = tap.removesuffix(INPUT_SUFFIX) if isinstance(tap, str) else repr(tap)
        if name not in valid:
            near = difflib.get_close_matches(name, valid, n=1)
            top = [child for child, _ in network.named_children()]  # All paths would fill pages.
            raise LsfdError(
                f"{whose}{type(network).__name__} has no module '{name}' to tap"
                f"{nearest(name, near or top)}"
            )


def tap_channels(network: nn.Module, taps: Sequence[str], whose: str = "") -> dict[str, int]:
    """Return the number of channels at each tap, found by one small forward.

    Args:
        network: The network, without hooks of this call afterwards.
        taps: Names of taps.
        whose: Put before the network's class in messages, such as ``"teacher "``.

    Raises:
        LsfdError: A tap is unknown, or its feature is not N x C x h x w for an input of
            N x 3 x h x w (tokens; the grid of the enlarged image).
    """
    check_tap_names(network, taps, whose)
    tapped = TappedNetwork(network, taps)
    try:
        with evaluating(network):
            image = trial_input(network)
            _, features = tapped(image)
    finally:
        tapped.remove()
    for name, feature in features.items():
        if not on_lr_grid(feature, image):
            raise LsfdError(
                f"tap '{name}' of {whose}{type(network).__name__} has shape "
                f"{tuple(feature.shape)} for an input of {tuple(image.shape)}; a tap must be "
                "N x C x h x w on the input's grid"
            )
    return {name: feature.shape[1] for name, feature in features.items()}


@dataclass(frozen=True)
class TapPair:
    """One place where the student's features are compared with the teacher's.

    Attributes:
        student: Tap in the student.
        teacher: Tap in the teacher.
        student_channels: C of the student's N x C x h x w feature.
        teacher_channels: C of the teacher's.
    """

    student: str
    teacher: str
    student_channels: int
    teacher_channels: int


def resolve_taps(student: nn.Module, teacher: nn.Module, spec: object) -> list[TapPair]:
    """Turn the ``taps`` of an option file into pairs that both networks really have.

    Args:
        student: The small network.
        teacher: The large one, of any architecture.
        spec: ``"auto"`` (stages at equal relative depth, see
            :func:`lsfd.networks.stages.auto_taps`), a list of names that both networks have, or a
            list of ``{"student": NAME, "teacher": NAME}``.

    Raises:
        LsfdError: ``spec`` has none of these shapes, a network lacks a tap (the message names
            the network and the nearest valid name), or a feature is off the input's grid.
    """
    names = _auto_pairs(student, teacher) if spec == "auto" else _listed_pairs(spec)
    student_channels = tap_channels(student, [mine for mine, _ in names], "student ")
    teacher_channels = tap_channels(teacher, [theirs for _, theirs in names], "teacher ")
    return [
        TapPair(mine, theirs, student_channels[mine], teacher_channels[theirs])
        for mine, theirs in names
    ]


def _auto_pairs(student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    count = min(len(auto_taps(student)), len(auto_taps(teacher)))  # A short body has fewer.
    return list(zip(auto_taps(student, count), auto_taps(teacher, count), strict=True))


def _listed_pairs(spec: object) -> list[tuple[str, str]]:
    if not isinstance(spec, Sequence) or isinstance(spec, str) or not spec:
        raise LsfdError(
            f"taps must be 'auto', a list of names, or a list of {{student: NAME, teacher: NAME}}, "
            f"not {spec!r}"
        )
    pairs = []
    for entry in spec:
        if isinstance(entry, str):
            pairs.append((entry, entry))
        elif isinstance(entry, Mapping) and set(entry) == {"student", "teacher"}:
            pairs.append((entry["student"], entry["teacher"]))
        else:
            raise LsfdError(
                f"taps: {entry!r} is neither a name nor {{student: NAME, teacher: NAME}}"
            )
    return pairs
