"""From a checked option file to networks and distillers; mistakes are named by file and line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lsfd.config.load import LoadedOptions
from lsfd.config.options import DistillerOptions
from lsfd.config.signature import ArgumentProblem, check_arguments
from lsfd.distillers import DISTILLERS, Distiller, Setting
from lsfd.errors import LsfdError, nearest
from lsfd.networks.build import build_network, network_scale
from lsfd.networks.ready import find_weights
from lsfd.networks.taps import TapPair, resolve_taps
from lsfd.networks.teachers import load_teacher
from lsfd.networks.weights import load_fitting_weights, load_weights


@dataclass(frozen=True)
class Window:
    """When a method takes part, and how much it counts.

    Attributes:
        start: first iteration.
        end: last iteration; None: to the end.
        weight: factor of all its terms.
    """

    start: int = 1
    end: int | None = None
    weight: float = 1.0

    def __contains__(self, iteration: int) -> bool:
        return self.start <= iteration and (self.end is None or iteration <= self.end)


@dataclass
class Parts:
    """What a run trains and learns from, on the CPU.

    Attributes:
        student: the network that is trained.
        begun_anew: names of its weights that path.pretrain_network_g has not, or in another shape.
        teachers: frozen networks in eval mode.
        peers: networks that are trained beside the student.
        distillers: methods by the name under which their terms are logged.
        windows: when each of them takes part.
        student_taps: names of the student's features that any distiller uses.
        teacher_taps: the same for each teacher.
        peer_taps: the same for each peer.
    """

    student: nn.Module
    begun_anew: list[str]
    teachers: list[nn.Module]
    peers: list[nn.Module]
    distillers: dict[str, Distiller]
    windows: dict[str, Window]
    student_taps: list[str]
    teacher_taps: list[list[str]]
    peer_taps: list[list[str]]


def assemble(loaded: LoadedOptions) -> Parts:
    """Build everything that an option file names, with its weights.

    The student comes first, so that its random start is the same whatever distils it.

    Raises:
        LsfdError: naming file, line and key of what does not fit.
    """
    student, begun_anew = build_student(loaded)
    teachers = build_teachers(loaded) if needs_teachers(loaded) else []
    peers = build_peers(loaded)
    distillers = build_distillers(loaded, student, teachers, peers)
    settings = [distiller.setting for distiller in distillers.values()]
    own = [tap for distiller in distillers.values() for tap in distiller.student_taps()]
    pairs = [taps for setting in settings for taps in (*setting.taps, *setting.peer_taps)]
    return Parts(
        student=student,
        begun_anew=begun_anew,
        teachers=teachers,
        peers=peers,
        distillers=distillers,
        windows=build_windows(loaded, distillers),
        student_taps=_unique([*(tap.student for taps in pairs for tap in taps), *own]),
        teacher_taps=[
            _unique(tap.teacher for setting in settings for tap in setting.taps[index])
            for index in range(len(teachers))
        ],
        peer_taps=[
            _unique(tap.teacher for setting in settings for tap in setting.peer_taps[index])
            for index in range(len(peers))
        ],
    )


def build_student(loaded: LoadedOptions) -> tuple[nn.Module, list[str]]:
    """Build ``network_g``, with ``path.pretrain_network_g`` if given, and check its scale.

    Returns:
        The student, and the names of its weights that do not come from that file.
    """
    paths = loaded.options.path
    student = _at(loaded, "network_g", build_network, loaded.raw["network_g"])
    _check_scale(loaded, "network_g", "student", student)
    if paths.pretrain_network_g is None:
        return student, []
    file = find_weights(paths.pretrain_network_g)
    if not paths.strict_load_g:
        return student, load_fitting_weights(student, file, paths.param_key_g)
    load_weights(student, file, paths.param_key_g)
    return student, []


def needs_teachers(loaded: LoadedOptions) -> bool:
    """Return whether any method learns from ``network_t``; if none does, it is not even read."""
    methods = [DISTILLERS.get(section.type) for section in loaded.options.distillers]
    return any(method is None or method.needs_teacher for method in methods)


def build_teachers(loaded: LoadedOptions) -> list[nn.Module]:
    """Build every ``network_t`` with its checkpoint and check its scale."""
    teachers = []
    networks = zip(loaded.options.network_t, loaded.options.path.pretrain_network_t, strict=True)
    for index, (section, path) in enumerate(networks):
        key = f"network_t.{index}"
        options = {"type": section.type, **section.arguments}
        teacher = _at(loaded, key, load_teacher, options, Path(path))
        _check_scale(loaded, key, "teacher", teacher)
        teachers.append(teacher)
    return teachers


def build_peers(loaded: LoadedOptions) -> list[nn.Module]:
    """Build every ``network_p`` with random weights and check its scale."""
    peers = []
    for index, section in enumerate(loaded.options.network_p):
        key = f"network_p.{index}"
        peer = _at(loaded, key, build_network, {"type": section.type, **section.arguments}, key)
        _check_scale(loaded, key, "peer", peer)
        peers.append(peer)
    methods = [DISTILLERS.get(section.type) for section in loaded.options.distillers]
    if peers and not any(method is None or method.needs_peers for method in methods):
        raise loaded.error("network_p", "no method here learns with peers; remove it")
    return peers


def build_distillers(
    loaded: LoadedOptions,
    student: nn.Module,
    teachers: list[nn.Module],
    peers: list[nn.Module],
) -> dict[str, Distiller]:
    """Build the list ``distillers``; a method listed twice is logged as ``lsfd``, ``lsfd2``."""
    distillers: dict[str, Distiller] = {}
    for index, section in enumerate(loaded.options.distillers):
        key = f"distillers.{index}"
        distiller = _build_distiller(loaded, key, section, student, teachers, peers)
        name = section.type.lower()
        count = sum(type(other) is type(distiller) for other in distillers.values())
        distillers[f"{name}{count + 1}" if count else name] = distiller
    return distillers


def build_windows(loaded: LoadedOptions, distillers: dict[str, Distiller]) -> dict[str, Window]:
    """Return when each entry of the list ``distillers`` takes part."""
    sections = loaded.options.distillers
    return {
        name: Window(section.start, section.end, section.weight)
        for name, section in zip(distillers, sections, strict=True)
    }


def _build_distiller(
    loaded: LoadedOptions,
    key: str,
    section: DistillerOptions,
    student: nn.Module,
    teachers: list[nn.Module],
    peers: list[nn.Module],
) -> Distiller:
    method = DISTILLERS.get(section.type)
    if method is None:
        hint = nearest(section.type, DISTILLERS)
        raise loaded.error(f"{key}.type", f"unknown method '{section.type}'{hint}")
    if method.needs_teacher and not teachers:
        raise loaded.error(
            key,
            f"{method.__name__} learns from a teacher: give network_t and "
            "path.pretrain_network_t, or remove it",
        )
    if method.needs_peers and not peers:
        raise loaded.error(
            key, f"{method.__name__} trains networks together: give network_p, or remove it"
        )
    wanted = section.model_dump()["taps"]

    def taps(networks: list[nn.Module], *, needed: bool) -> tuple[tuple[TapPair, ...], ...]:
        if not (method.uses_features and needed):
            return tuple(() for _ in networks)
        return tuple(
            tuple(_at(loaded, f"{key}.taps", resolve_taps, student, network, wanted))
            for network in networks
        )

    setting = Setting(
        loaded.options.scale,
        taps(teachers, needed=method.needs_teacher),
        taps(peers, needed=method.needs_peers),
        student,
        partial(build_network, loaded.raw["network_g"]),
    )
    try:
        arguments = check_arguments(method, section.arguments, ignore={"setting"})
    except ArgumentProblem as problem:
        raise loaded.error(f"{key}.{problem.key}", problem.message) from None
    return _at(loaded, key, method, setting, **arguments)


def _check_scale(loaded: LoadedOptions, key: str, role: str, network: nn.Module) -> None:
    scale = network_scale(network)
    if scale != loaded.options.scale:
        raise loaded.error(
            key,
            f"the {role} upscales x{scale}, but scale is {loaded.options.scale}; "
            "student, teacher and data must have one scale",
        )


def _at(loaded: LoadedOptions, key: str, function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a function of a lower floor; what it finds wrong is reported at ``key``.

    A message that begins with a key below ``key`` (``network_g.num_feat: ...``) is reported there.
    """
    try:
        return function(*arguments, **options)
    except LsfdError as error:
        path, _, message = str(error).partition(": ")
        if message and path.startswith(f"{key}.") and " " not in path:
            raise loaded.error(path, message) from error
        raise loaded.error(key, str(error)) from error


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
