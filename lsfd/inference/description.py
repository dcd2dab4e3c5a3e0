"""What an exported file says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from lsfd.errors import LsfdError
from lsfd.inference.footprint import bytes_per_pixel
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.reach import FARTHEST, reach
from lsfd.networks.trial import size_multiple

Precision = Literal["fp32", "fp16", "int8"]

EXPORT_KEY = "lsfd_export"
"""The entry of a file's metadata beside the card's."""


class ExportNote(BaseModel):
    """How an exported file is used.

    Attributes:
        input: name, type, shape and range of what it takes.
        output: the same of what it gives.
        scale: s, how many times larger the output is.
        reach: input pixels to each side that a pixel of the result depends on; None: all of them.
        multiple: what h and w must be a multiple of.
        bytes_per_pixel: of memory that the network needs for a pixel of its input, estimated.
        precision: what it computes in.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    input: str = "lq: float32, N x 3 x h x w, RGB, 0..1"
    output: str = "sr: float32, N x 3 x sh x sw, RGB, 0..1 (may leave it a little: clip)"
    # Limits, because the numbers decide how much memory is taken, and a file may say anything.
    scale: Annotated[int, Field(ge=1, le=64)]
    reach: Annotated[int, Field(ge=0, le=FARTHEST)] | None
    multiple: Annotated[int, Field(ge=1, le=256)]
    bytes_per_pixel: Annotated[int, Field(ge=1, le=1 << 30)]
    precision: Precision

    @classmethod
    def of(cls, network: nn.Module, scale: int, precision: Precision) -> ExportNote:
        """Measure what there is to say of a network that is to be exported."""
        return cls(
            scale=scale,
            reach=reach(network),
            multiple=size_multiple(network),
            bytes_per_pixel=bytes_per_pixel(network),
            precision=precision,
        )


def to_metadata(card: StudentCard, note: ExportNote) -> dict[str, str]:
    """Return both as a file's metadata."""
    return {**card.to_metadata(), EXPORT_KEY: note.model_dump_json()}


def from_metadata(metadata: Mapping[str, str]) -> tuple[StudentCard, ExportNote] | None:
    """Return what a file says about itself; None: nothing, somebody else exported it.

    Raises:
        LsfdError: it is damaged.
    """
    if METADATA_KEY not in metadata or EXPORT_KEY not in metadata:
        return None
    card = StudentCard.from_metadata(metadata)
    try:
        note = ExportNote.model_validate_json(metadata[EXPORT_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise LsfdError(f"its description is damaged ({field}: {first['msg']})") from error
    if note.scale != card.scale:
        raise LsfdError(f"says that it enlarges x{card.scale}, and that it enlarges x{note.scale}")
    return card, note
