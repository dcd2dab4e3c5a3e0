"""Arguments from an option file, checked against the signature of what they are for."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from lsfd.config.base import WHOLE
from lsfd.config.sentences import explain
from lsfd.errors import LsfdError, nearest


class ArgumentProblem(LsfdError):
    """An argument that does not fit.

    Attributes:
        key: the argument, or the key path inside it, such as ``weights.output``.
        message: what is wrong with it, without the key.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


def check_arguments(
    callable_: Callable[..., Any], arguments: Mapping[str, Any], ignore: Collection[str] = ()
) -> dict[str, Any]:
    """Check keyword arguments against a signature and return them, converted where it says so.

    Types are those of the annotations (``Literal``, unions and ``Annotated`` bounds included);
    where there is none, that of the default. Nothing is converted but whole numbers to floats,
    ``5e3`` to whole numbers, and lists to tuples. A callable with ``**kwargs`` takes any name.

    Args:
        callable_: a class or function.
        arguments: plain data from an option file.
        ignore: parameters that the program gives, not the option file.

    Returns:
        The given arguments, without defaults.

    Raises:
        ArgumentProblem: a name is unknown, a value does not fit, or a required one is missing.
    """
    model = _model(callable_, ignore)
    if model.model_config.get("extra") == "forbid":
        for name in arguments:
            if name not in model.model_fields:
                raise ArgumentProblem(name, f"unknown option{nearest(name, model.model_fields)}")
    try:
        checked = model.model_validate(dict(arguments))
    except ValidationError as error:
        path, message = explain(error, arguments)
        raise ArgumentProblem(".".join(path), message) from None
    return {name: getattr(checked, name) for name in arguments}


def arguments_schema(
    callable_: Callable[..., Any],
    descriptions: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
) -> dict[str, Any]:
    """Return the JSON schema of a callable's keyword arguments.

    Args:
        callable_: a class or function.
        descriptions: what each argument means, by name.
        ignore: parameters that the program gives, not the option file.
    """
    schema = _model(callable_, ignore).model_json_schema()
    for name, description in (descriptions or {}).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = description
    return schema


def _model(callable_: Callable[..., Any], ignore: Collection[str]) -> type[BaseModel]:
    """Return a strict pydantic model with one field for each keyword argument."""
    function = callable_.__init__ if inspect.isclass(callable_) else callable_
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(callable_).parameters.values()
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in ignore or parameter.kind not in _BY_NAME:
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (_type(hints.get(parameter.name), default), default)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    config = ConfigDict(
        strict=True,
        extra="allow" if takes_any else "forbid",
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )
    return create_model(callable_.__name__, __config__=config, **fields)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _type(annotation: Any, default: Any) -> Any:
    """Return the type that a value must have."""
    if annotation is None:
        annotation = Any if default is ... or default is None else type(default)
        # Without annotation a default of 1 may well stand for a factor such as 0.5.
        annotation = float if annotation is int else annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[tuple(_type(kind, default) for kind in typing.get_args(annotation))]  # noqa: UP007
    if annotation is int:
        return Annotated[int, WHOLE]
    if annotation is tuple or typing.get_origin(annotation) is tuple:
        return Annotated[annotation, Field(strict=False)]
    return annotation
