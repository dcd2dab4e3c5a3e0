"""What the students that come with the package say about themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lsfd.errors import LsfdError, nearest
from lsfd.networks.card import StudentCard
from lsfd.networks.ready import ready_students
from lsfd.reporting.tables import Cell, markdown_table


@dataclass(frozen=True)
class ReadyStudent:
    """A student that comes with the package.

    Attributes:
        name: by which it is found.
        card: what it says about itself.
        parameters: how many numbers it has.
        size: of its file, in bytes.
    """

    name: str
    card: StudentCard
    parameters: int
    size: int

    @classmethod
    def read(cls, name: str, path: Path) -> ReadyStudent:
        """Read a file's head; its weights are not looked at.

        Raises:
            LsfdError: it is no student, or damaged.
        """
        try:
            with safe_open(path, framework="numpy") as file:  # Torch would take a second.
                card = StudentCard.from_metadata(file.metadata())
                shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        except (LsfdError, SafetensorError) as error:
            raise LsfdError(f"{path}: {error}") from error
        return cls(name, card, sum(map(math.prod, shapes)), path.stat().st_size)


def read_ready() -> list[ReadyStudent]:
    """Return all of them, by scale and size."""
    students = [ReadyStudent.read(*item) for item in ready_students().items()]
    return sorted(students, key=lambda student: (student.card.scale, student.parameters))


def ready_table(students: list[ReadyStudent]) -> str:
    """Return a Markdown table: sizes, how they were trained, PSNR-Y / SSIM-Y on each set."""
    sets = _sets(student.card for student in students)
    header = ["student", "parameters", "file (KB)", "network", "method", "teacher", "steps", *sets]
    rows: list[list[Cell]] = []
    for student in students:
        card = student.card
        row: list[Cell] = [student.name, student.parameters, round(student.size / 1000)]
        row += [str(card.architecture.get("type")), card.method, _stem(card.teacher)]
        row += [card.iterations, *(_scores(card, name) for name in sets)]
        rows.append(row)
    return markdown_table(header, rows)


def describe(name: str) -> str:
    """Return the card of a ready student, a field a line.

    Raises:
        LsfdError: there is none of that name.
    """
    students = ready_students()
    if name not in students:
        raise LsfdError(f"'{name}' is no student that comes with lsfd{nearest(name, students)}")
    student = ReadyStudent.read(name, students[name])
    card = student.card
    own = card.model_dump(exclude={"scores"})
    fields = {
        "file": str(students[name]),
        "parameters": f"{student.parameters:,}",
        **{key: value for key, value in own.items() if value not in (None, {})},
        **{f"{each} (PSNR-Y / SSIM-Y)": _scores(card, each) for each in _sets([card])},
    }
    width = max(map(len, fields))
    return "".join(f"{key.ljust(width)}  {_text(value)}\n" for key, value in fields.items())


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _sets(cards: Iterable[StudentCard]) -> list[str]:
    """Return the names of all sets that cards have scores of: Set5 before Set14."""
    names = {name for card in cards for name in card.scores}
    return sorted(
        names,
        key=lambda name: [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)
        ],
    )


def _stem(teacher: str | None) -> str | None:
    return None if teacher is None else teacher.removesuffix(".safetensors")


def _scores(card: StudentCard, name: str) -> str | None:
    its = card.scores.get(name)
    return None if its is None else f"{its['psnr_y']:.2f} / {its['ssim_y']:.4f}"
