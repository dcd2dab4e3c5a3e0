"""What an HTML report holds: numbers, curves and pictures, whoever measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from lsfd.reporting.series import Points

Role = Literal["baseline", "student", "teacher"]
Group = Literal["Images", "Differences", "Attention"]


@dataclass(frozen=True)
class Curves:
    """What one training run wrote down.

    Attributes:
        name: of the run; its student has the same name among the report's models.
        losses: name -> iteration -> value.
        scores: validation set -> iteration -> PSNR-Y in dB.
        facts: what else is worth knowing, as (name, value).
        options: the text of its option file.
    """

    name: str
    losses: Mapping[str, Points]
    scores: Mapping[str, Points]
    facts: Sequence[tuple[str, str]] = ()
    options: str = ""


@dataclass(frozen=True)
class Model:
    """A row of the table and a point of the plot.

    Attributes:
        name: unique in the report.
        role: what it is in the report.
        scores: set -> (PSNR-Y in dB, SSIM-Y); PSNR may be infinite.
        parameters: how many; None where it has none.
        multiply_adds: for one image; None where none are counted.
        latency: seconds for a megapixel of output; None if it was not measured.
        teacher: name of the model that it is measured against, if any.
    """

    name: str
    role: Role
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    parameters: int | None = None
    multiply_adds: int | None = None
    latency: float | None = None
    teacher: str | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One way to look at a picture.

    Attributes:
        label: what it shows, unique in its picture.
        group: under which heading it is offered.
        image: uint8, H x W x 3, RGB; or a map of numbers, float, h x w, shown in colours. It is
            stretched over the picture, so it may lie on the low-resolution grid.
        note: a few words beside the label, for example ``"31.42 dB"``.
        top: the number that gets a map's brightest colour; the darkest is 0.
        unit: of a map's numbers.
    """

    label: str
    group: Group
    image: NDArray[Any]
    note: str = ""
    top: float = 1.0
    unit: str = ""

    @property
    def is_map(self) -> bool:
        """Whether the view is a map of numbers."""
        return self.image.ndim == 2


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture and all its views.

    Attributes:
        name: of the picture.
        source: of which set, and which part of it, in words.
        views: at least two; the largest one gives the size.
        first: label of the view that stands on the left at the beginning.
        second: the same for the right.
    """

    name: str
    source: str
    views: Sequence[View]
    first: str
    second: str


@dataclass(frozen=True, eq=False)
class Report:
    """All of a report.

    Attributes:
        title: its heading.
        scale: the factor of all models.
        runs: what was trained.
        models: what was measured.
        sets: names of the sets, in order.
        pictures: what to look at.
        notes: sentences on what was measured how, and on what is missing.
    """

    title: str
    scale: int
    runs: Sequence[Curves]
    models: Sequence[Model] = ()
    sets: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
