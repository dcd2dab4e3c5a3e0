"""What a report compares: bicubic, the runs' students, and their teachers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import BICUBIC, bicubic
from lsfd.evaluation.cost import Upscale, paper_input, seconds_per_megapixel
from lsfd.evaluation.scores import SetScores
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.student_file import read_student
from lsfd.networks.teachers import load_teacher
from lsfd.reporting.report_contents import Model, Role
from lsfd.training.finished import FinishedRun

ROUNDS = 3
"""Timed rounds; the median counts."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """Something that enlarges.

    Attributes:
        name: unique in the report.
        role: what it is there.
        upscale: from pixels to pixels.
        teacher: name of the contestant that it is measured against, if any.
    """

    name: str
    role: Role
    upscale: Upscale
    teacher: str | None = None

    @property
    def multiple(self) -> int:
        """What the sides of its input must be a multiple of."""
        return self.upscale.multiple if isinstance(self.upscale, Upscaler) else 1


def contestants(runs: Sequence[FinishedRun], device: str, notes: list[str]) -> list[Contestant]:
    """Load everything that a report compares.

    Args:
        runs: at one scale.
        device: where the networks run.
        notes: gets a sentence for each network that is not there.

    Raises:
        LsfdError: a student's file is damaged, or there is no such device.
    """
    scale = runs[0].loaded.options.scale
    teachers = _Teachers(runs, notes)
    found = [Contestant(BICUBIC, "baseline", bicubic(scale))]
    for run in runs:
        if run.student is None:
            notes.append(f"{run.name} has no student yet: only its curves are shown.")
            continue
        if run.student.parent == run.folder.models:
            notes.append(f"{run.name} is not finished: its student is that of the last checkpoint.")
        network, card = read_student(run.student)
        if card.scale != scale:
            raise LsfdError(f"{run.student} enlarges x{card.scale}, but its options say x{scale}")
        student = Upscaler(network, scale, device)
        found.append(Contestant(run.name, "student", student, teachers.first_of(run)))
    for name, network in teachers.networks.items():
        found.append(Contestant(name, "teacher", Upscaler(network, scale, device)))
    return found


class _Teachers:
    """The teachers of some runs, each loaded once.

    Attributes:
        networks: by name.
    """

    def __init__(self, runs: Sequence[FinishedRun], notes: list[str]) -> None:
        loaded: dict[str, tuple[Path, nn.Module]] = {}
        self._keys = {run.name: self._keys_of(run) for run in runs}
        for run in runs:
            for key, (options, path) in self._keys[run.name].items():
                if key in loaded:
                    continue
                try:
                    loaded[key] = path, load_teacher(options, path)
                except LsfdError as error:
                    note = (
                        f"The teacher {path.name} is left out ({error}); a relative path counts "
                        "from the folder in which the command is given."
                    )
                    if note not in notes:
                        notes.append(note)
        taken = {BICUBIC, *(run.name for run in runs)}
        self._names: dict[str, str] = {}
        for key, (path, _) in loaded.items():
            name = "teacher" if len(loaded) == 1 else path.stem
            while name in taken:
                name = f"{name} (teacher)"
            taken.add(name)
            self._names[key] = name
        self.networks = {self._names[key]: network for key, (_, network) in loaded.items()}

    @staticmethod
    def _keys_of(run: FinishedRun) -> dict[str, tuple[dict[str, object], Path]]:
        options = run.loaded.options
        found = {}
        for section, path in zip(options.network_t, options.path.pretrain_network_t, strict=True):
            network = {"type": section.type, **section.arguments}
            key = json.dumps([network, str(Path(path).resolve())], sort_keys=True, default=str)
            found[key] = network, Path(path)
        return found

    def first_of(self, run: FinishedRun) -> str | None:
        """Return the name of a run's first teacher that is there."""
        return next((self._names[key] for key in self._keys[run.name] if key in self._names), None)


def measured(
    found: Sequence[Contestant], scores: dict[str, list[SetScores]], scale: int
) -> list[Model]:
    """Return what each contestant reached and costs; it is timed on this machine.

    Args:
        found: what to time.
        scores: by name, on each set.
        scale: of all of them.
    """
    upscales = {each.name: each.upscale for each in found}
    seconds = seconds_per_megapixel(upscales, scale, ROUNDS)
    return [
        Model(
            name=each.name,
            role=each.role,
            scores={s.name: (s.psnr_y, s.ssim_y) for s in scores[each.name]},
            latency=seconds[each.name],
            teacher=each.teacher,
            **_size(each),
        )
        for each in found
    ]


def _size(contestant: Contestant) -> dict[str, int]:
    """Return a network's parameters and multiply-adds; nothing for what is no network."""
    upscaler = contestant.upscale
    if not isinstance(upscaler, Upscaler):
        return {}
    height, width = paper_input(upscaler.scale, upscaler.multiple)
    return {
        "parameters": count_parameters(upscaler.network),
        "multiply_adds": multiply_adds(upscaler.network, height, width),
    }
