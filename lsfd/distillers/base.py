"""The contract of a distillation method.

A distiller is an ``nn.Module`` that turns what student and teachers did with one batch into named,
unweighted, scalar loss terms. Regressors and the like are parameters of its own: they are trained
with the student, saved in checkpoints, and never part of the exported student.

A method that has to learn something first (a dictionary, a hint) asks for stages: the first
iterations of the run, in which nothing but the stage's own terms is minimised. A method whose parts
have opposite aims (a discriminator) asks for turns: optimiser steps of their own in every
iteration. A method may give the student extra inputs (a mixture of losses), grow branches from
copies of it, and learn with peers: networks that are trained beside the student.

Adding a method takes one file in this package: a subclass of :class:`Distiller` under
:func:`register`, whose docstring holds the equation, the shapes and the paper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
        peer_taps: the same for each peer, which takes the teacher's place in a pair.
        student: the student, to look at; what a method keeps of it must be a copy.
        new_student: returns a network like the student, with a random start of its own.
    """

    scale: int
    taps: tuple[tuple[Tap, ...], ...]
    peer_taps: tuple[tuple[Tap, ...], ...] = ()
    student: nn.Module = field(default_factory=nn.Identity)
    new_student: Callable[[], nn.Module] = nn.Identity


class Network(Protocol):
    """A student or teacher that a method may run on inputs of its own.

    A teacher's parameters take no gradient, but gradients flow through it to its input; a method
    that wants none of that runs it under ``torch.no_grad()``.
    """

    @property
    def network(self) -> nn.Module:
        """The bare network, for methods that read weights."""

    def __call__(
        self,
        lq: Tensor,
        replace: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return output and features by tap name.

        Args:
            lq: B x 3 x h x w in 0..1.
            replace: features that take the place of what the network itself computes at these
                taps; the rest of the network goes on from them.
            inputs: further arguments of the network's forward.
        """


@dataclass(frozen=True)
class DistillationBatch:
    """What student and teachers did with one batch; images are RGB in 0..1.

    Attributes:
        lq: low-resolution input, B x 3 x h x w.
        gt: ground truth, B x 3 x sh x sw.
        student: the student's output, float32, B x 3 x sh x sw; empty in a stage that does not
            run the student.
        teachers: each teacher's output, detached, float32, B x 3 x sh x sw.
        student_features: the student's features by tap name, B x Cs x h x w.
        teacher_features: for each teacher its features by tap name, detached, B x Ct x h x w.
        step: training iteration, counted from 1.
        student_network: the student itself.
        teacher_networks: the teachers themselves, frozen.
        inputs: what the methods gave the student beside ``lq``, by name.
        peers: each peer's output, float32, B x 3 x sh x sw; with gradients, as the student's.
        peer_features: for each peer its features by tap name, B x Cp x h x w.
    """

    lq: Tensor
    gt: Tensor
    student: Tensor
    teachers: Sequence[Tensor]
    student_features: Mapping[str, Tensor]
    teacher_features: Sequence[Mapping[str, Tensor]]
    step: int
    student_network: Network
    teacher_networks: Sequence[Network]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    peers: Sequence[Tensor] = ()
    peer_features: Sequence[Mapping[str, Tensor]] = ()


@dataclass(frozen=True)
class Stage:
    """The first iterations of a run, in which a method learns something by itself.

    Attributes:
        name: under which its terms are logged.
        iterations: how many; 0: the stage is left out.
        runs_student: whether student and peers run (and learn, as far as gradients reach them).
        lr: learning rate at the stage's begin, falling to 0 along a cosine; None: the run's.
        learns: whether anything is minimised; without it the method only looks at the data: no
            gradients are taken, and the terms are of no account.
    """

    name: str
    iterations: int
    runs_student: bool = True
    lr: float | None = None
    learns: bool = True


@dataclass(frozen=True)
class Turn:
    """An optimiser step that a method takes in every iteration, after the common one.

    The networks run anew on the same batch. The optimiser is of the run's kind and has a state of
    its own.

    Attributes:
        name: under which its terms are logged.
        lr: learning rate at its highest; it follows the run's schedule.
        trains_networks: whether student and peers are trained; without it they run without
            gradients.
    """

    name: str
    lr: float
    trains_networks: bool = False


class Distiller(nn.Module, ABC):
    """Base of all methods.

    Subclasses take a :class:`Setting` and keyword options (the keys of their entry in the option
    file) and list in ``default_weights`` every term that they return, with its default weight.
    The first line of a class's docstring says what the method does.

    Attributes:
        default_weights: the terms of :meth:`forward` and their weights.
        paper: authors and identifier of the paper, such as ``Park and Kwak, arXiv 2111.10988``.
        year: of the paper; None where there is none.
        needs_teacher: whether the method makes no sense without ``network_t``.
        uses_features: whether the method compares features at taps.
        needs_peers: whether the method makes no sense without ``network_p``.
    """

    default_weights: ClassVar[Mapping[str, float]]
    paper: ClassVar[str]
    year: ClassVar[int | None]
    needs_teacher: ClassVar[bool] = True
    uses_features: ClassVar[bool] = True
    needs_peers: ClassVar[bool] = False

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

    def stages(self) -> Sequence[Stage]:
        """Return what has to be learned, in this order, before the student's own training."""
        return ()

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return what a stage of :meth:`stages` minimises: float32 scalars, summed up as they are.

        What must not change in this stage gets no gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} declares the stage '{stage.name}'")

    def turns(self) -> Sequence[Turn]:
        """Return the optimiser steps of its own that the method takes in every iteration."""
        return ()

    def turn_parameters(self, turn: Turn) -> Iterable[nn.Parameter]:
        """Return which of the method's own parameters are trained in a turn of :meth:`turns`.

        What only turns train must get no gradient from :meth:`forward`.
        """
        raise NotImplementedError(f"{type(self).__name__} declares the turn '{turn.name}'")

    def turn_terms(self, turn: Turn, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return what a turn of :meth:`turns` minimises: float32 scalars, summed up as they are."""
        raise NotImplementedError(f"{type(self).__name__} declares the turn '{turn.name}'")

    def student_taps(self) -> Sequence[str]:
        """Return taps of the student that the method reads beside those of its setting."""
        return ()

    def inputs(self, lq: Tensor) -> dict[str, Tensor]:
        """Return what the student's forward is given beside ``lq``, by name of the argument.

        Called before every training step of the student.

        Args:
            lq: B x 3 x h x w in 0..1.
        """
        return {}

    def maps(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return what is worth a picture, by name: 1 x 1 x h x w for a batch of one image.

        Called at validation, without gradients; draws no random numbers.
        """
        return {}


DistillerClass = TypeVar("DistillerClass", bound=type[Distiller])

DISTILLERS: dict[str, type[Distiller]] = {}
"""Every method by its name in option files."""


def register(distiller: DistillerClass) -> DistillerClass:
    """Class decorator: make a method known under its class name."""
    DISTILLERS[distiller.__name__] = distiller
    return distiller
