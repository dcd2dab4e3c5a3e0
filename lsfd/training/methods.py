"""``lsfd methods``: what can be listed under ``distillers``."""

from __future__ import annotations

import inspect

from lsfd.distillers import DISTILLERS, Distiller
from lsfd.reporting.tables import markdown_table


def methods_table() -> str:
    """Return a Markdown table of all methods: what each does, its paper, what it needs."""
    rows = [[name, _summary(method), _paper(method), _needs(method)] for name, method in _sorted()]
    return markdown_table(["method", "what it does", "paper", "needs"], rows)


def _sorted() -> list[tuple[str, type[Distiller]]]:
    """Return the methods by year, those without a paper first."""
    return sorted(DISTILLERS.items(), key=lambda item: (item[1].year or 0, item[0].lower()))


def _summary(method: type[Distiller]) -> str:
    return (inspect.getdoc(method) or "").splitlines()[0].rstrip(".")


def _paper(method: type[Distiller]) -> str:
    return f"{method.paper}, {method.year}" if method.year else "-"


def _needs(method: type[Distiller]) -> str:
    if not method.needs_teacher:
        return "no teacher"
    return "teacher's features" if method.uses_features else "teacher's images"
