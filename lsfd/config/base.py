"""What all sections of the option file have in common."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from lsfd.errors import nearest

UNKNOWN_KEY = "unknown_key"

BASICSR_ONLY = frozenset(
    [
        "io_backend",
        "filename_tmpl",
        "use_shuffle",
        "dataset_enlarge_ratio",
        "prefetch_mode",
        "num_prefetch_queue",
        "queue_size",
        "pin_memory",
        "meta_info_file",
        "mean",
        "std",
        "color",
        "find_unused_parameters",
    ]
)
"""Keys of BasicSR's option files that have no meaning here."""


def unknown_key(key: str, valid: list[str]) -> PydanticCustomError:
    """Return the error for a key that a section does not have."""
    if key in BASICSR_ONLY:
        message = "BasicSR's option has no meaning here; remove it"
    else:
        message = f"unknown option{nearest(key, valid)}"
    # Braces would be read as placeholders in the message's template.
    return PydanticCustomError(UNKNOWN_KEY, "{sentence}", {"key": key, "sentence": message})


class Section(BaseModel):
    """A mapping of the option file whose keys are all known.

    Nothing is converted (``"16"`` is no number), except that whole numbers may be written as
    floats (``5e3``) and floats as whole numbers.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_key(cls, data: Any) -> Any:
        """Name an unknown key before the key that it was meant to be is found missing."""
        if isinstance(data, dict) and cls.model_config.get("extra") == "forbid":
            for key in data:
                if key not in cls.model_fields:
                    raise unknown_key(str(key), list(cls.model_fields))
        return data


class Component(BaseModel):
    """A mapping with a ``type`` whose further keys are that type's arguments."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, use_attribute_docstrings=True
    )

    type: Text
    """Name of the class to build."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The further keys: arguments for the class named by ``type``."""
        return dict(self.model_extra or {})


def _whole(value: Any) -> Any:
    """Accept BasicSR's way of writing 5000 as ``5e3``."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def listed(value: Any) -> Any:
    """Turn a single entry into a list of one, and null into an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _folder_name(name: str) -> str:
    if len(PurePosixPath(name).parts) != 1 or name in {".", ".."} or set(name) & set('/\\:*?"<>|'):
        raise ValueError("must be usable as the name of a folder")
    return name


Text = Annotated[str, Field(min_length=1)]
FolderName = Annotated[Text, AfterValidator(_folder_name)]
WHOLE = BeforeValidator(_whole)
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Natural = Annotated[int, Field(ge=0), WHOLE]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), WHOLE]
Count = Annotated[int, Field(ge=1), WHOLE]
Texts = Annotated[
    list[Text], BeforeValidator(listed, json_schema_input_type=Text | list[Text] | None)
]
"""One text, a list of them, or null; always a list once read."""
