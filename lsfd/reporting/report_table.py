"""The table of a report, and the sentence that says the most important of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lsfd.reporting.report_contents import Model, Report

NOTHING = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        text: as shown.
        value: what the column is sorted by; None goes to the end.
        best: whether no other student is better.
    """

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        name: its heading.
        group: the heading above it: a set's name, or "".
        cells: one for each model.
        falls: whether the first click sorts from the greatest down.
    """

    name: str
    group: str
    cells: Sequence[Cell]
    falls: bool = True


def columns(report: Report) -> list[Column]:
    """Return the columns that have at least one number."""
    found = [column for name in report.sets for column in _columns_of_set(name, report.models)]
    found += _columns_of_cost(report.models)
    return [column for column in found if any(cell.value is not None for cell in column.cells)]


def _columns_of_cost(models: Sequence[Model]) -> list[Column]:
    sizes = [_cell(m.parameters, f"{m.parameters or 0:,}") for m in models]
    adds = [_cell(m.multiply_adds, f"{(m.multiply_adds or 0) / 1e9:,.1f}") for m in models]
    times = [_cell(m.latency, milliseconds(m.latency or 0)) for m in models]
    return [
        Column("parameters", "", sizes, falls=False),
        Column("multiply-adds (G)", "", adds, falls=False),
        Column("time (ms/MP)", "", times, falls=False),
    ]


def _columns_of_set(name: str, models: Sequence[Model]) -> list[Column]:
    psnr = [model.scores[name][0] if name in model.scores else None for model in models]
    ssim = [model.scores[name][1] if name in model.scores else None for model in models]
    gaps = [gap(model, models, name) for model in models]
    return [
        Column("PSNR-Y (dB)", name, _scored(models, psnr, 2)),
        Column("SSIM-Y", name, _scored(models, ssim, 4)),
        Column("to teacher (dB)", name, [_cell(v, f"{v or 0:+.2f}") for v in gaps]),
    ]


def gap(model: Model, models: Iterable[Model], name: str) -> float | None:
    """Return the PSNR-Y of a model less its teacher's on a set; None where one is missing."""
    teacher = next((other for other in models if other.name == model.teacher), None)
    if teacher is None or name not in model.scores or name not in teacher.scores:
        return None
    found = model.scores[name][0] - teacher.scores[name][0]
    return found if math.isfinite(found) else None


def _scored(models: Sequence[Model], values: Sequence[float | None], digits: int) -> list[Cell]:
    """Return scores, the best student's marked; those that look equal are equally good."""
    texts = [decibels(v, digits) if v is not None else NOTHING for v in values]
    contest = [
        (value, text)
        for model, value, text in zip(models, values, texts, strict=True)
        if model.role == "student" and value is not None
    ]
    best = max(contest)[1] if len(contest) > 1 else None
    return [
        Cell(text, value, model.role == "student" and text == best)
        for model, value, text in zip(models, values, texts, strict=True)
    ]


def _cell(value: float | None, text: str) -> Cell:
    return Cell(NOTHING) if value is None else Cell(text.replace("-", "\N{MINUS SIGN}"), value)


def decibels(value: float, digits: int = 2) -> str:
    """Return a score as text; an infinite one as its sign."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds with about three digits."""
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def headline(report: Report) -> str:
    """Return one or two sentences on the best student of the first set; "" where there is none."""
    if not report.sets:
        return ""
    name = report.sets[0]
    students = [m for m in report.models if m.role == "student" and name in m.scores]
    if not students:
        return ""
    best = max(students, key=lambda model: model.scores[name][0])
    among = f", the best of {len(students)} students here," if len(students) > 1 else ""
    text = f"{best.name}{among} reaches {decibels(best.scores[name][0])} dB on {name}"
    return f"{text}{_against_baseline(best, report, name)}{_against_teacher(best, report, name)}."


def _against_baseline(model: Model, report: Report, name: str) -> str:
    baseline = next((m for m in report.models if m.role == "baseline" and name in m.scores), None)
    if baseline is None:
        return ""
    difference = model.scores[name][0] - baseline.scores[name][0]
    if not math.isfinite(difference):
        return ""
    return f", {_above(difference)} {baseline.name}"


def _against_teacher(model: Model, report: Report, name: str) -> str:
    difference = gap(model, report.models, name)
    if difference is None:
        return ""
    teacher = {m.name: m for m in report.models}[model.teacher or ""]
    text = f" and {_above(difference)} its teacher"
    shares = _shares(model, teacher)
    return f"{text}, with {shares}" if shares else text


def _shares(model: Model, teacher: Model) -> str:
    parts = []
    if model.parameters and teacher.parameters:
        parts.append(f"{model.parameters / teacher.parameters:.0%} of the teacher's parameters")
    if model.latency and teacher.latency:
        parts.append(f"{model.latency / teacher.latency:.0%} of its time")
    return " and ".join(parts)


def _above(difference: float) -> str:
    return f"{abs(difference):.2f} dB {'above' if difference >= 0 else 'below'}"


def grouped(found: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the headings above the columns, each with how many columns it spans."""
    groups: list[tuple[str, int]] = []
    for column in found:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return groups
