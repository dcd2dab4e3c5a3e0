"""Batches for the tests of distillation methods: small real networks run on random images."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS, DistillationBatch, Distiller, Setting
from lsfd.networks.build import build_network
from lsfd.networks.taps import TapPair, TappedNetwork, resolve_taps

SCALE = 2

OTHER_STUDENTS = {"SGN": "GatedEDSR"}
"""Methods that a plain network cannot learn by, and the type of network that can."""


def sections_of(method: str, iterations: int) -> dict[str, Any]:
    """What an option file says of a method whose stages take so many iterations each."""
    parameters = inspect.signature(DISTILLERS[method]).parameters
    stages = [name for name in parameters if name.endswith("_iter")]
    sections: dict[str, Any] = {
        "distillers": [{"type": method, **dict.fromkeys(stages, iterations)}]
    }
    if DISTILLERS[method].needs_peers:
        small = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 6, "num_block": 2}
        sections["network_p"] = [{**small, "upscale": SCALE}]
    if method in OTHER_STUDENTS:
        small = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 3}
        sections["network_g"] = {"type": OTHER_STUDENTS[method], **small, "upscale": SCALE}
    return sections


def edsr(num_feat: int = 6, num_block: int = 3, seed: int = 0, kind: str = "EDSR") -> nn.Module:
    """A small x2 EDSR whose layers are far from zero, so that features differ visibly."""
    return _network({"type": kind, "num_feat": num_feat, "num_block": num_block}, seed)


def rcan(num_feat: int = 8, seed: int = 0) -> nn.Module:
    """A small x2 RCAN."""
    options = {
        "type": "RCAN",
        "num_feat": num_feat,
        "num_group": 3,
        "num_block": 1,
        "squeeze_factor": 4,
    }
    return _network(options, seed)


def _network(options: dict[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network({"num_in_ch": 3, "num_out_ch": 3, "upscale": SCALE, **options})
    for name, parameter in network.named_parameters():
        if name.startswith("body") and parameter.dim() > 1:
            parameter.data.mul_(5)  # BasicSR starts residual branches at a tenth of Kaiming's.
    return network


@dataclass
class Case:
    """A student, its teachers and a peer with all their taps."""

    student: TappedNetwork
    teachers: list[TappedNetwork]
    setting: Setting
    peers: list[TappedNetwork] = field(default_factory=list)
    inputs: Callable[[Tensor], dict[str, Tensor]] = lambda _: {}

    def batch(self, size: int = 3, height: int = 8, width: int = 10) -> DistillationBatch:
        """Run all networks on random images; no teacher's result carries gradients."""
        generator = torch.Generator().manual_seed(7)
        lq = torch.rand(size, 3, height, width, generator=generator)
        gt = torch.rand(size, 3, SCALE * height, SCALE * width, generator=generator)
        inputs = self.inputs(lq)
        output, features = self.student(lq, inputs=inputs)
        peers = [peer(lq) for peer in self.peers]
        with torch.no_grad():
            taught = [teacher(lq) for teacher in self.teachers]
        return DistillationBatch(
            lq=lq,
            gt=gt,
            student=output.float(),
            teachers=[image.float() for image, _ in taught],
            student_features=features,
            teacher_features=[theirs for _, theirs in taught],
            step=1,
            student_network=self.student,
            teacher_networks=self.teachers,
            inputs=inputs,
            peers=[image.float() for image, _ in peers],
            peer_features=[theirs for _, theirs in peers],
        )


def case(
    student: nn.Module | None = None,
    teachers: Sequence[nn.Module] | None = None,
    peers: Sequence[nn.Module] | None = None,
) -> Case:
    """A case of these networks; without any, an EDSR, a wider, deeper teacher and such a peer."""
    student = student or edsr()
    peers = [edsr(7, 4, seed=2)] if peers is None else list(peers)
    teachers = [edsr(8, 6, seed=1)] if teachers is None else list(teachers)
    for teacher in teachers:
        teacher.eval().requires_grad_(False)
    pairs, peer_pairs = (
        [tuple(resolve_taps(student, other, "auto")) for other in others]
        for others in (teachers, peers)
    )
    original = student
    return Case(
        TappedNetwork(student, [tap.student for taps in [*pairs, *peer_pairs] for tap in taps]),
        _tapped(teachers, pairs),
        Setting(SCALE, tuple(pairs), tuple(peer_pairs), student, lambda: copy.deepcopy(original)),
        _tapped(peers, peer_pairs),
    )


def _tapped(
    networks: Sequence[nn.Module], pairs: Sequence[tuple[TapPair, ...]]
) -> list[TappedNetwork]:
    return [
        TappedNetwork(network, [tap.teacher for tap in taps])
        for network, taps in zip(networks, pairs, strict=True)
    ]


def agreeing_case(teachers: int = 1, student: nn.Module | None = None) -> Case:
    """A student that does exactly what its teachers and its peer do, down to the weights."""
    student = student or edsr()
    copies = [copy.deepcopy(student) for _ in range(teachers)]
    return case(student, copies, [copy.deepcopy(student)])


def build(method: type[Distiller], given: Case, **options: Any) -> Distiller:
    """A distiller for a case, the same whenever it is built; its own taps and inputs are placed."""
    torch.manual_seed(0)
    distiller = method(given.setting, **options)
    taps = [*given.student.taps, *distiller.student_taps()]
    given.student = TappedNetwork(given.student.network, taps)
    given.inputs = distiller.inputs
    return distiller


def terms_of(distiller: Distiller, batch: DistillationBatch) -> dict[str, Tensor]:
    """The terms of a batch, with the same random numbers whenever they are asked for."""
    torch.manual_seed(0)
    return distiller(batch)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of all terms; zero where there are none."""
    return torch.stack([torch.zeros((), requires_grad=True), *terms.values()]).sum()


@dataclass(frozen=True)
class Tap:
    """A pair of taps that no network has."""

    student: str
    teacher: str
    student_channels: int
    teacher_channels: int


def setting(student_channels: int = 6, teacher_channels: int = 6, teachers: int = 1) -> Setting:
    """Three pairs of taps for each teacher, for :func:`random_batch`."""
    taps = tuple(Tap(f"s{i}", f"t{i}", student_channels, teacher_channels) for i in range(3))
    return Setting(SCALE, (taps,) * teachers)


def random_batch(given: Setting, seed: int = 0) -> DistillationBatch:
    """Random features and images of these taps; only the student's carry gradients."""
    networks = case()
    generator = torch.Generator().manual_seed(seed)

    def rand(channels: int, scale: int = 1) -> Tensor:
        return torch.rand(2, channels, 5 * scale, 7 * scale, generator=generator)

    return DistillationBatch(
        lq=rand(3),
        gt=rand(3, SCALE),
        student=rand(3, SCALE).requires_grad_(),
        teachers=[rand(3, SCALE) for _ in given.taps],
        student_features={
            tap.student: rand(tap.student_channels).requires_grad_() for tap in given.taps[0]
        },
        teacher_features=[
            {tap.teacher: rand(tap.teacher_channels) for tap in taps} for taps in given.taps
        ],
        step=1,
        student_network=networks.student,
        teacher_networks=networks.teachers * len(given.taps),
    )


def agreeing(batch: DistillationBatch) -> DistillationBatch:
    """The same batch with a student that does exactly what its teacher does."""
    features = {f"s{name[1:]}": value for name, value in batch.teacher_features[0].items()}
    return replace(
        batch,
        student=batch.teachers[0],
        teachers=[batch.teachers[0]] * len(batch.teachers),
        student_features=features,
        teacher_features=[batch.teacher_features[0]] * len(batch.teachers),
    )
