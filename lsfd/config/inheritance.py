"""Option files that build on another one: ``extends: ../edsr_x4_lsfd.yml``.

Mappings are merged key by key, everything else (a list of distillers, say) takes the place of what
the other file has there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsfd.config.reader import KeyPath, read_document
from lsfd.errors import LsfdError

EXTENDS = "extends"
MAX_FILES = 10

Places = dict[KeyPath, str]
"""Where each key path is written, such as ``options/run.yml, line 7``."""


def read_options(path: str | Path, chain: tuple[str, ...] = ()) -> tuple[dict[str, Any], Places]:
    """Read an option file and those that it extends, as plain data.

    Args:
        path: the file.
        chain: the files that lead to it by ``extends``.

    Returns:
        The data, without the key ``extends``, and where each key stands.

    Raises:
        LsfdError: a file is missing, no accepted YAML, no mapping, or the chain has no end.
    """
    document = read_document(path)
    data, source = document.data, str(path)
    if not isinstance(data, dict):
        what = "is empty" if data is None else "is no mapping of options"
        raise LsfdError(f"{source}: {what}; see options/edsr_x4_lsfd.yml for an example")
    places = {keys: f"{source}, line {line}" for keys, line in document.lines.items()}
    if EXTENDS not in data:
        return data, places
    place, base = places.pop((EXTENDS,)), data.pop(EXTENDS)
    if not isinstance(base, str) or not base:
        raise LsfdError(f"{place}, {EXTENDS}: must be the path of an option file")
    if len(chain) >= MAX_FILES:
        raise LsfdError(f"{place}, {EXTENDS}: more than {MAX_FILES} files; does one extend itself?")
    try:
        inherited, inherited_places = read_options(Path(path).parent / base, (*chain, source))
    except LsfdError as error:
        raise LsfdError(f"{place}, {EXTENDS}: {error}") if not chain else error from error
    _merge(inherited, inherited_places, data, places, ())
    return inherited, inherited_places


def _merge(
    data: dict[str, Any], places: Places, own: dict[str, Any], own_places: Places, path: KeyPath
) -> None:
    """Put ``own`` over ``data``, in place."""
    for key, value in own.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            places[here] = own_places[here]
            _merge(data[key], places, value, own_places, here)
            continue
        data[key] = value
        for known in [keys for keys in places if keys[: len(here)] == here]:
            del places[known]
        places.update({k: place for k, place in own_places.items() if k[: len(here)] == here})


def merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``data`` with ``changes`` put over it, as a file is over the one that it extends."""
    result = dict(data)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
