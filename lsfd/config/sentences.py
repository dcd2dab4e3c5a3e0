"""From pydantic's validation errors to one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lsfd.config.base import UNKNOWN_KEY
from lsfd.config.reader import KeyPath
from lsfd.errors import nearest

MORE = 3
"""So many further mistakes are named."""

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "string_type": "text",
    "tuple_type": "a list",
}


def real_path(data: Any, location: Sequence[int | str], *, absent: bool) -> KeyPath:
    """Return the key path in ``data`` that a location means.

    A location may hold steps that are not in the data: the member of a union that was tried, and
    the index of a single entry that stands for a list of one.

    Args:
        data: plain data.
        location: keys and indices from the top.
        absent: whether the last step may be a key that a mapping lacks.
    """
    path: list[str] = []
    for position, step in enumerate(location):
        key = str(step)
        if isinstance(data, Mapping):
            last = position == len(location) - 1 and isinstance(step, str)
            if key not in data and not (absent and last):
                continue
            data = data.get(key)
        elif isinstance(data, list) and key.isascii() and key.isdigit():
            data = data[int(key)] if int(key) < len(data) else None
        else:
            continue
        path.append(key)
    return tuple(path)


def explain(error: ValidationError, data: Any) -> tuple[KeyPath, str]:
    """Return the key path of the first mistake and a sentence about it that counts the others."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path(detail, data), []).append(detail)
    # Where one member of a union fits down to some key, only that key is worth a word.
    first, *others = [path for path in by_path if not any(_inside(deep, path) for deep in by_path)]
    sentence = _sentence(by_path[first])
    if others:
        names = ", ".join(".".join(path) for path in others[:MORE])
        dots = ", ..." if len(others) > MORE else ""
        sentence += f" (and {len(others)} more: {names}{dots})"
    return first, sentence


def _inside(path: KeyPath, ancestor: KeyPath) -> bool:
    return len(path) > len(ancestor) and path[: len(ancestor)] == ancestor


def _path(detail: ErrorDetails, data: Any) -> KeyPath:
    location, kind = list(detail["loc"]), detail["type"]
    if kind == UNKNOWN_KEY:
        location.append(detail["ctx"]["key"])
    elif kind.startswith("union_tag"):
        location.append(detail["ctx"]["discriminator"].strip("'"))
        kind = "missing"
    return real_path(data, location, absent=kind == "missing")


def _sentence(details: list[ErrorDetails]) -> str:
    """Join what the members of a union want; outside a union there is one detail."""
    kinds = {detail["type"] for detail in details}
    first = details[0]
    if kinds & {"missing", "union_tag_not_found"}:
        return "is missing"
    if kinds & {UNKNOWN_KEY, "value_error"}:
        return str(first.get("ctx", {}).get("error", first["msg"]))
    if "union_tag_invalid" in kinds:
        context = first["ctx"]
        valid = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        return f"'{context['tag']}' is not known{nearest(context['tag'], valid)}"
    if kinds & {"too_short", "string_too_short"}:
        return "is empty; give at least one"
    wanted = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    got = first["input"]
    hint = ""
    if kinds == {"literal_error"} and isinstance(got, str):
        valid = first["ctx"]["expected"].replace(" or ", ", ").split(", ")
        hint = nearest(got, [name.strip("'") for name in valid])
        hint = hint if "did you mean" in hint else ""
    return f"should be {wanted}, got {_shown(got)}{hint}"


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "too_long":
        return f"a list of at most {detail['ctx']['max_length']}"
    fallback = detail["msg"].removeprefix("Input should be ")
    return _EXPECTED.get(detail["type"], fallback)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
