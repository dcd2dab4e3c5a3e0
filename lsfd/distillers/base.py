"""The contract of a distillation method.

A distiller is an ``nn.Module`` that turns what student and teachers did with one batch into named,
unweighted, scalar loss terms. Regressors and the like are parameters of its own: they are trained
with the student, saved in checkpoints, and never part of the exported student.

Adding a method takes one file in this package: a subclass of :class:`Distiller` under
:func:`register`, whose docstring holds the equation, the shapes and the paper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from lsfd.errors import LsfdError, nearest


class Tap(Protocol):
    """A feature of the student and the teacher's feature that it is compared with."""

    @property
    def student(self) -> str:
        """Name of the tap in the student."""

    @property
    def teacher(self) -> str:
        """Name of the tap in the teacher."""

    @property
    def student_channels(self) -> int:
        """Channels Cs of the student's feature, B x Cs x h x w."""

    @property
    def teacher_channels(self) -> int:
        """Channels Ct of the teacher's feature, B x Ct x h x w."""


@dataclass(frozen=True)
class Setting:
    """What a distiller is built for.

    Attributes:
        scale: upscaling factor s.
        taps: for each teacher, the pairs of features to compare; empty for a method without taps.
    """

    scale: int
    taps: tuple[tuple[Tap, ...], ...]


@dataclass(frozen=True)
class DistillationBatch:
    """What student and teachers did with one batch; images are RGB in 0..1.

    Attributes:
        lq: low-resolution input, B x 3 x h x w.
        gt: ground truth, B x 3 x sh x sw.
        student: the student's output, float32, B x 3 x sh x sw.
        teachers: each teacher's output, detached, float32, B x 3 x sh x sw.
        student_features: the student's features by tap name, B x Cs x h x w.
        teacher_features: for each teacher its features by tap name, detached, B x Ct x h x w.
        step: training iteration, counted from 1.
    """

    lq: Tensor
    gt: Tensor
    student: Tensor
    teachers: Sequence[Tensor]
    student_features: Mapping[str, Tensor]
    teacher_features: Sequence[Mapping[str, Tensor]]
    step: int


class Distiller(nn.Module, ABC):
    """Base of all methods.

    Subclasses take a :class:`Setting` and keyword options (the keys of their entry in the option
    file) and list in ``default_weights`` every term that they return, with its default weight.
    """

    default_weights: ClassVar[Mapping[str, float]]
    uses_features: ClassVar[bool] = True

    def __init__(self, setting: Setting, weights: Mapping[str, float] | None = None) -> None:
        """Check the weights and complete them with the defaults.

        Raises:
            LsfdError: a weight is negative or names a term that this method does not have.
        """
        super().__init__()
        for term, weight in (weights or {}).items():
            if term not in self.default_weights:
                raise LsfdError(
                    f"weights.{term}: unknown term{nearest(term, self.default_weights)}"
                )
            if weight < 0:
                raise LsfdError(f"weights.{term}: a weight must be at least 0, not {weight}")
        self.setting = setting
        self.weights: dict[str, float] = {**self.default_weights, **(weights or {})}

    @abstractmethod
    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return the unweighted terms, each a float32 scalar, under the names of the weights."""


DistillerClass = TypeVar("DistillerClass", bound=type[Distiller])

DISTILLERS: dict[str, type[Distiller]] = {}
"""Every method by its name in option files."""


def register(distiller: DistillerClass) -> DistillerClass:
    """Class decorator: make a method known under its class name."""
    DISTILLERS[distiller.__name__] = distiller
    return distiller
