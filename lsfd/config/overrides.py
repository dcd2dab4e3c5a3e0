"""Changes from the command line: ``train.total_iter=2000``.

BasicSR's spelling ``train:total_iter=2000`` is taken as well.
"""

from __future__ import annotations

from typing import Any

from lsfd.config.reader import MAX_DEPTH, Document, KeyPath
from lsfd.errors import LsfdError, nearest
from lsfd.terminal import visible


def apply_override(data: dict[str, Any], override: str) -> KeyPath:
    """Set one value in ``data`` in place and return its key path.

    The value is read as YAML (``[1, 2]`` is a list, ``null`` is None), never evaluated. Missing
    mappings on the way are made; whether the option exists is for validation to say.

    Raises:
        LsfdError: the override has no ``=``, its value is no YAML, or its path leads through
            something that is no mapping, or past the end of a list.
    """
    place = f"override {override}"
    keys, equals, value = override.partition("=")
    path = tuple(keys.strip().replace(":", ".").split("."))
    if not equals or "" in path or len(path) > MAX_DEPTH:
        raise LsfdError(f"{place}: write it as section.key=value")
    if visible(keys) != keys:  # Among them bytes that are no UTF-8, which nothing could print.
        raise LsfdError(f"{place}: holds control characters; remove them")
    node: Any = data
    for depth in range(1, len(path)):
        node = _descend(node, path[:depth], {}, replace=False, place=place)
    _descend(node, path, Document(value.strip(), place).data, replace=True, place=place)
    return path


def _descend(node: Any, path: KeyPath, new: Any, *, replace: bool, place: str) -> Any:
    """Return the child of ``node`` at the end of ``path``, made ``new`` if missing or replaced."""
    key = path[-1]
    if isinstance(node, dict):
        if replace or node.get(key) is None:
            node[key] = new
        return node[key]
    if isinstance(node, list):
        valid = [str(index) for index in range(len(node))]
        if key not in valid:
            raise LsfdError(f"{place}: {'.'.join(path)} does not exist{nearest(key, valid)}")
        if replace:
            node[int(key)] = new
        return node[int(key)]
    raise LsfdError(f"{place}: {'.'.join(path[:-1])} is no mapping, so it has no '{key}'")
