"""What a finished network says about itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from lsfd.errors import LsfdError

METADATA_KEY = "lsfd_student"
"""The one entry of a file's metadata; safetensors does not keep several in a fixed order."""


def _from_json(value: Any) -> Any:
    return math.inf if value == _INFINITE else value


def _to_json(value: float) -> float | str:
    return _INFINITE if value == math.inf else value


_INFINITE = "inf"
"""The PSNR of identical images, for which JSON has no number; older files have ``Infinity``."""

_Score = Annotated[float, BeforeValidator(_from_json), PlainSerializer(_to_json)]


class StudentCard(BaseModel):
    """What is needed to use a network, and where it comes from.

    Attributes:
        architecture: Options of BasicSR's shape, as :func:`lsfd.networks.build.build_network`
            takes them.
        scale: How many times larger the output is.
        method: How it was trained, such as ``"LSFD"``.
        teacher: File name of the teacher.
        iterations: Optimiser steps.
        data: What it was trained on, in words.
        scores: Validation scores: by set, by metric (``{"Set5": {"psnr_y": 31.7}}``).
        seed: Seed of the random generators.
        commit: Commit of the code.
        versions: Versions of the packages that decide a result.
        hardware: What it was trained on, in words.
        note: Anything else.
        limits: What it is not for.
    """

    model_config = ConfigDict(frozen=True, strict=True, ser_json_inf_nan="constants")

    architecture: dict[str, Any]
    scale: Annotated[int, Field(ge=1)]
    method: str | None = None
    teacher: str | None = None
    iterations: Annotated[int, Field(ge=0)] | None = None
    data: str | None = None
    scores: dict[str, dict[str, _Score]] = {}
    seed: int | None = None
    commit: str | None = None
    versions: dict[str, str] = {}
    hardware: str | None = None
    note: str | None = None
    limits: str | None = None

    def to_metadata(self) -> dict[str, str]:
        """Return the card as metadata of a safetensors file; equal cards give equal text."""
        return {METADATA_KEY: json.dumps(self.model_dump(mode="json"), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None) -> StudentCard:
        """Read a card back.

        Raises:
            LsfdError: There is none, or it is damaged; the message names the field.
        """
        if not metadata or METADATA_KEY not in metadata:
            raise LsfdError("the file does not describe itself (no student saved by lsfd)")
        try:
            return cls.model_validate_json(metadata[METADATA_KEY])
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the whole"
            raise LsfdError(f"its description is damaged ({field}: {first['msg']})") from error
