"""Environment variables and home folders in the texts of an option file."""

from __future__ import annotations

import os
import re

from lsfd.errors import LsfdError

_REFERENCE = re.compile(r"\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?\Z", re.DOTALL)


def expand(text: str) -> str:
    """Replace ``${VAR}`` and ``${VAR:-default}`` by the environment's values, and a leading ``~``.

    As in a shell, an empty variable counts as unset where a default is given.

    Raises:
        LsfdError: a variable without default is not set, or a reference is malformed.
    """
    return os.path.expanduser(_REFERENCE.sub(_value, text))


def _value(reference: re.Match[str]) -> str:
    body = _BODY.match(reference["body"])
    if body is None or not reference["end"]:
        raise LsfdError(
            f"'{reference[0]}' is not a reference to an environment variable; "
            "write ${NAME} or ${NAME:-default}"
        )
    name, default = body["name"], body["default"]
    value = os.environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise LsfdError(
            f"the environment variable {name} is not set; "
            f"set it, or write ${{{name}:-folder}} to give a default"
        )
    return value
