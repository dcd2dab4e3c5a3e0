"""From a checked option file to networks and distillers; mistakes are named by file and line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lsfd.config.load import LoadedOptions
from lsfd.config.options import DistillerOptions
from lsfd.config.signature import ArgumentProblem, check_arguments
from lsfd.distillers import DISTILLERS, Distiller, Setting
from lsfd.errors import LsfdError, nearest
from lsfd.networks.build import build_network, network_scale
from lsfd.networks.taps import TapPair, resolve_taps
from lsfd.networks.teachers import load_teacher
from lsfd.networks.weights import load_weights


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
        teachers: frozen networks in eval mode.
        distillers: methods by the name under which their terms are logged.
        windows: when each of them takes part.
        student_taps: names of the student's features that any distiller uses.
        teacher_taps: the same for each teacher.
    """

    student: nn.Module
    teachers: list[nn.Module]
    distillers: dict[str, Distiller]
    windows: dict[str, Window]
    student_taps: list[str]
    teacher_taps: list[list[str]]


def assemble(loaded: LoadedOptions) -> Parts:
    """Build everything that an option file names, with its weights.

    The student comes first, so that its random start is the same whatever distils it.

    Raises:
        LsfdError: naming file, line and key of what does not fit.
    """
    student = build_student(loaded)
    teachers = build_teachers(loaded) if needs_teachers(loaded) else []
    distillers = build_distillers(loaded, student, teachers)
    pairs = [distiller.setting.taps for distiller in distillers.values()]
    return Parts(
        student=student,
        teachers=teachers,
        distillers=distillers,
        windows=build_windows(loaded, distillers),
        student_taps=_unique(tap.student for taps in pairs for of_one in taps for tap in of_one),
        teacher_taps=[
            _unique(tap.teacher for taps in pairs for tap in taps[index])
            for index in range(len(teachers))
        ],
    )


def build_student(loaded: LoadedOptions) -> nn.Module:
    """Build ``network_g``, with ``path.pretrain_network_g`` if given, and check its scale."""
    options = loaded.options
    student = _at(loaded, "network_g", build_network, loaded.raw["network_g"])
    _check_scale(loaded, "network_g", "student", student)
    if options.path.pretrain_network_g is not None:
        load_weights(student, Path(options.path.pretrain_network_g), options.path.param_key_g)
    return student


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


def build_distillers(
    loaded: LoadedOptions, student: nn.Module, teachers: list[nn.Module]
) -> dict[str, Distiller]:
    """Build the list ``distillers``; a method listed twice is logged as ``lsfd``, ``lsfd2``."""
    distillers: dict[str, Distiller] = {}
    for index, section in enumerate(loaded.options.distillers):
        distiller = _build_distiller(loaded, f"distillers.{index}", section, student, teachers)
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
    taps: list[tuple[TapPair, ...]] = [() for _ in teachers]
    if method.uses_features:
        wanted = section.model_dump()["taps"]
        taps = [
            tuple(_at(loaded, f"{key}.taps", resolve_taps, student, teacher, wanted))
            for teacher in teachers
        ]
    try:
        arguments = check_arguments(method, section.arguments, ignore={"setting"})
    except ArgumentProblem as problem:
        raise loaded.error(f"{key}.{problem.key}", problem.message) from None
    return _at(loaded, key, method, Setting(loaded.options.scale, tuple(taps)), **arguments)


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
