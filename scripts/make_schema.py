"""Write options/schema.json, with which editors complete and check option files.

Run it after an option, a distillation method or a network has changed: ``python
scripts/make_schema.py``.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from lsfd.config.schema import json_schema
from lsfd.config.signature import arguments_schema
from lsfd.distillers import DISTILLERS, Distiller
from lsfd.networks.build import sr_networks

SCHEMA_FILE = Path(__file__).resolve().parent.parent / "options" / "schema.json"

_ARGUMENTS = re.compile(r"^ *Args:\n(?P<body>(?:(?: {4,}.*)?\n)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"(?P<name>\w+)(?: \([^)]*\))?: (?P<text>.*)")
_ROLE = re.compile(r":\w+:`([^`]*)`")


def described_arguments(docstring: str | None) -> dict[str, str]:
    """Return what a docstring says under ``Args:`` about each argument, in one line each."""
    section = _ARGUMENTS.search(inspect.cleandoc(docstring or "") + "\n")
    if section is None:
        return {}
    texts: dict[str, str] = {}
    lines = inspect.cleandoc(section["body"]).splitlines()
    name = ""
    for line in lines:
        entry = None if line.startswith(" ") else _ARGUMENT.match(line)
        if entry is not None:
            name = entry["name"]
            texts[name] = entry["text"]
        elif name:
            texts[name] += f" {line.strip()}"
    return {name: _ROLE.sub(r"\1", text).strip() for name, text in texts.items()}


def method_schema(method: type[Distiller]) -> dict[str, Any]:
    """Return the schema of a distillation method's options."""
    descriptions = described_arguments(method.__init__.__doc__)
    schema = arguments_schema(method, descriptions, ignore={"setting"})
    schema["description"] = _first_line(method)
    schema["properties"]["weights"] = {
        "description": "Weights of the method's loss terms.",
        "type": "object",
        "properties": {
            term: {"type": "number", "minimum": 0, "default": weight}
            for term, weight in method.default_weights.items()
        },
        "additionalProperties": False,
    }
    return schema


def network_schema(network: type[Any]) -> dict[str, Any]:
    """Return the schema of an architecture's arguments; classes cannot be given in a file."""
    parameters = inspect.signature(network).parameters
    layers = [
        name
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty and inspect.isclass(parameter.default)
    ]
    # BasicSR describes arguments in the class's docstring, this package in the constructor's.
    described = described_arguments(network.__doc__) | described_arguments(network.__init__.__doc__)
    schema = arguments_schema(network, described, ignore=layers)
    schema["description"] = _first_line(network)
    schema["additionalProperties"] = False  # What SwinIR takes as **kwargs, it ignores.
    return schema


def option_file_schema() -> dict[str, Any]:
    """Return the schema of the whole option file.

    Methods and networks that others registered in this process are left out.
    """
    # BasicSR's registry marks a name that somebody else took already with "_basicsr".
    networks = {name.removesuffix("_basicsr"): network for name, network in sr_networks().items()}
    return json_schema(
        {
            name: method_schema(method)
            for name, method in DISTILLERS.items()
            if method.__module__.startswith("lsfd.")
        },
        {
            name: network_schema(network)
            for name, network in networks.items()
            if network.__module__.startswith(("basicsr.", "lsfd."))
        },
    )


def text(schema: dict[str, Any]) -> str:
    """Return the schema as it is written to the file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _first_line(described: type[Any]) -> str:
    return inspect.cleandoc(described.__doc__ or described.__name__).splitlines()[0]


if __name__ == "__main__":
    SCHEMA_FILE.write_text(text(option_file_schema()), encoding="utf-8")
    print(f"wrote {SCHEMA_FILE}")
