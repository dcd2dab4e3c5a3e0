"""The option file's JSON schema, with which editors complete and check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsfd.config.inheritance import EXTENDS
from lsfd.config.options import AUTO_TYPE, Options

Schema = dict[str, Any]

COMPLETE = "CompleteComponent"
"""Definition of what a network has to name in a file that extends no other one."""


def json_schema(
    distillers: Mapping[str, Schema] | None = None, networks: Mapping[str, Schema] | None = None
) -> Schema:
    """Return the JSON schema (draft 2020-12) of the whole option file.

    Args:
        distillers: schema of each method's options, by its name; None: any mapping with a type.
        networks: schema of each architecture's arguments, by its name; None: the same.
    """
    schema = Options.model_json_schema(mode="validation")
    definitions = schema["$defs"]
    if distillers is not None:
        common = definitions["DistillerOptions"]
        definitions["DistillerOptions"] = _one_of(common, distillers, definitions)
    if networks is not None:
        common = definitions["Component"]
        auto = {AUTO_TYPE: {"type": "object", "properties": {}}}
        definitions["Teacher"] = _one_of(common, {**auto, **networks}, definitions)
        definitions["Component"] = _one_of(common, networks, definitions)
        schema["properties"]["network_t"] = _pointed_at_teacher(schema["properties"]["network_t"])
        definitions[COMPLETE] = _asks_for_arguments(networks)
    _accept_extends(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_untitled(schema)}


def _accept_extends(schema: Schema) -> None:
    """Let a file that extends another one leave out what that one has."""
    schema["properties"][EXTENDS] = {
        "type": "string",
        "description": "Option file that this one builds on, as a path from this file; mappings "
        "are merged, everything else takes the place of what that file has.",
    }
    whole: Schema = {"required": schema.pop("required")}
    if COMPLETE in schema["$defs"]:
        reference = {"$ref": f"#/$defs/{COMPLETE}"}
        whole["properties"] = {
            "network_g": reference,
            "network_t": {**reference, "items": reference},
            "network_p": {**reference, "items": reference},
        }
    schema["anyOf"] = [{"required": [EXTENDS]}, whole]
    for definition in schema["$defs"].values():
        if "type" not in definition.get("required", []):
            definition.pop("required", None)


def _asks_for_arguments(networks: Mapping[str, Schema]) -> Schema:
    """Return a schema that asks for what a network of the type that is named cannot do without."""
    return {
        "allOf": [
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"required": arguments["required"]},
            }
            for name, arguments in sorted(networks.items())
            if arguments.get("required")
        ]
    }


def _one_of(common: Schema, types: Mapping[str, Schema], definitions: Schema) -> Schema:
    """Return a schema that knows the arguments of the type that is named."""
    branches = []
    for name, arguments in sorted(types.items()):
        definitions.update(arguments.get("$defs", {}))
        branches.append(
            {
                "type": "object",
                "description": arguments.get("description", name),
                "properties": {
                    **common["properties"],
                    **arguments["properties"],
                    "type": {
                        "const": name,
                        "description": common["properties"]["type"]["description"],
                    },
                },
                "required": ["type"],
                "additionalProperties": arguments.get("additionalProperties", False),
            }
        )
    return {"description": common["description"], "oneOf": branches}


def _pointed_at_teacher(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _pointed_at_teacher(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_pointed_at_teacher(item) for item in node]
    return "#/$defs/Teacher" if node == "#/$defs/Component" else node


def _untitled(node: Any) -> Any:
    """Drop pydantic's titles, which repeat the keys' names."""
    if isinstance(node, dict):
        return {
            key: _untitled(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_untitled(item) for item in node] if isinstance(node, list) else node
