"""The option file: read safely, checked, typed, and explained when it is wrong."""

from __future__ import annotations

from lsfd.config.load import LoadedOptions, load_options, options_from_dict
from lsfd.config.options import Options
from lsfd.config.signature import ArgumentProblem, arguments_schema, check_arguments

__all__ = [
    "ArgumentProblem",
    "LoadedOptions",
    "Options",
    "arguments_schema",
    "check_arguments",
    "load_options",
    "options_from_dict",
]
