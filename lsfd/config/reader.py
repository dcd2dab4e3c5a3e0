"""Reading YAML from strangers: plain data and the line of every key, or one clear sentence.

YAML 1.2's core scalars are read, not YAML 1.1's: ``1e-4`` and ``5e3`` are numbers, only ``true``
and ``false`` are booleans (``on`` and ``no`` are text), ``010`` is ten. Tags other than those of
the core types, duplicate keys, keys that are no text, control characters, and documents that are
huge or that aliases blow up are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lsfd.errors import LsfdError
from lsfd.terminal import visible

KeyPath = tuple[str, ...]
"""Keys from the top of the document; a list's indices are written as text."""

MAX_BYTES = 1 << 18
"""An option file may not be larger; those of the project have a hundredth of that."""

MAX_NODES = 100_000
"""A document may not have more values than this, aliases counted as often as they are used."""
MAX_DEPTH = 50
_HUGE = f"has more than {MAX_BYTES} bytes, which no option file needs"

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_BOOLEANS = {"true": True, "false": False}
_INTEGER = r"[-+]?[0-9]+"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan"
# The first pattern that fits decides, so that whole numbers are not taken for floats.
_SCALARS = (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", _INTEGER),
    ("float", _FLOAT),
    ("merge", r"<<"),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with YAML 1.2's core scalars."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse what no document may have, whatever limit of recursion a library has set."""
        self._depth += 1
        if self._depth > 2 * MAX_DEPTH:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that ``_Loader`` would otherwise read as something else."""

    ignore_aliases = staticmethod(lambda data: True)


for _class in (_Loader, _Dumper):
    for _name, _pattern in _SCALARS:
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


class Document:
    """A YAML document as plain data, and the line of every key path in it.

    Attributes:
        data: dicts with text keys, lists, text, numbers, booleans and None; nothing is shared,
            so that a change in one place stays there.
        lines: line, counted from 1, of each key path.
    """

    def __init__(self, text: str, source: str) -> None:
        """Parse ``text``; ``source`` names it in errors.

        Raises:
            LsfdError: the text is no YAML, or uses what is refused here.
        """
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self._nodes = 0
        if len(text) > MAX_BYTES:
            raise self._error(None, _HUGE)
        try:
            root = yaml.compose(text, Loader=_Loader)
            self.data: Any = None if root is None else self._plain(root, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self._error(mark, f"not valid YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise self._error(None, f"not a text file: {str(error).splitlines()[0]}") from error
        except RecursionError as error:
            raise self._error(None, "nested too deeply") from error

    def _error(self, mark: yaml.Mark | None, message: str) -> LsfdError:
        line = "" if mark is None else f", line {mark.line + 1}"
        return LsfdError(f"{self.source}{line}: {message}")

    def _plain(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._error(
                node.start_mark,
                f"more than {MAX_NODES} values or {MAX_DEPTH} levels once aliases are expanded",
            )
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self._item(item, (*path, str(i))) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, kind)
        raise self._error(node.start_mark, f"the tag {node.tag} is not accepted; remove it")

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self._plain(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        inherited: dict[str, Any] = {}
        own: dict[str, Any] = {}
        merges = [value for key, value in node.value if key.tag == _MERGE]
        for value_node in merges:  # First, so that the lines of the mapping's own keys prevail.
            for name, value in self._merged(value_node, path):
                inherited.setdefault(name, value)
        for key_node, value_node in node.value:
            name = key_node.value
            if key_node.tag == _MERGE:
                continue
            if key_node.tag != f"{_TAG}str" or not isinstance(name, str):
                shown = f"'{name}'" if isinstance(name, str) else "of this entry"
                raise self._error(key_node.start_mark, f"the key {shown} is not text")
            self._check_text(key_node)
            if name in own:
                raise self._error(key_node.start_mark, f"the key '{name}' is given twice")
            self.lines[(*path, name)] = key_node.start_mark.line + 1
            own[name] = self._plain(value_node, (*path, name))
        return {**inherited, **own}

    def _merged(self, node: yaml.Node, path: KeyPath) -> Iterator[tuple[str, Any]]:
        """Yield what ``<<: *alias`` or ``<<: [*first, *second]`` brings; the first wins."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self._plain(source, path)
            if not isinstance(value, dict):
                raise self._error(source.start_mark, "'<<' needs a mapping to merge")
            yield from value.items()

    def _scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        value: str = node.value
        try:
            if kind == "str":
                self._check_text(node)
                return value
            if kind == "null":
                return None
            if kind == "bool":
                return _BOOLEANS[value.lower()]
            if kind == "int":
                return int(value)
            if kind == "float":
                return float(value.replace(".inf", "inf").replace(".nan", "nan"))
        except (KeyError, ValueError) as error:
            raise self._error(node.start_mark, f"'{value}' is no {kind}") from error
        raise self._error(node.start_mark, f"the tag {node.tag} is not accepted; remove it")

    def _check_text(self, node: yaml.ScalarNode) -> None:
        """Refuse what no name or path has: a file could only mean to deceive with it."""
        if visible(node.value) != node.value:
            raise self._error(
                node.start_mark, f"'{node.value}' holds control characters; remove them"
            )


def read_document(path: str | Path) -> Document:
    """Read the YAML file at ``path``.

    Raises:
        LsfdError: the file is missing, unreadable or huge, or no YAML that is accepted here.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # A pipe may never end.
            raise LsfdError(f"{path}: cannot be read: it is no file")
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise LsfdError(f"{path}: {_HUGE}")
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise LsfdError(f"{path}: no such option file") from error
    except UnicodeDecodeError as error:
        raise LsfdError(f"{path}: not a text file; option files are YAML in UTF-8") from error
    except OSError as error:
        raise LsfdError(f"{path}: cannot be read: {error.strerror}") from error
    return Document(text, str(path))


def dump(data: Any) -> str:
    """Write plain data as YAML that :class:`Document` reads back unchanged."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)
