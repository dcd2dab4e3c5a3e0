"""Measure how hard each term of each method pulls at the student, compared with the pixel loss.

    LSFD_DATA=... python scripts/balance.py [--methods LSFD FitNet] [--json FILE]

Default weights are chosen by this: weighted, a term should have about a tenth to the whole of the
pixel loss's gradient. A fresh student learns from the L1 pixel loss alone for some iterations; then
each method in turn, with its defaults, gets this student, and peers that learned as it did. First
its stages run, shortened, and the student is put back to what it was; then the method's own
parameters (regressors, say) learn beside the frozen student; then the norms of the gradients on the
student's parameters are averaged over some batches. The ratios are those of one moment of training:
they fall and rise as it goes on. Other settings of a method than its defaults are given as
``--set distillers.0.kernel=3``.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsfd import provenance
from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.config.load import load_options
from lsfd.data.patches import PatchDataset
from lsfd.distillers import DISTILLERS, Distiller
from lsfd.reporting.tables import markdown_table
from lsfd.training.distributed import Processes
from lsfd.training.model import LSFDModel
from lsfd.training.observation import observe
from lsfd.training.phases import Phase
from lsfd.training.run import seed_everything
from lsfd.training.samples import training_loader, training_store

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ROOT / "options" / "edsr_x4_lsfd.yml"
Batches = Iterator[dict[str, Tensor]]
NOT_MEASURED = {"SGN": "its student takes a mixture, as no other method's does"}


@dataclass(frozen=True)
class Lengths:
    """How many batches each part of the measurement takes."""

    student: int
    stage: int
    settle: int
    measured: int


@dataclass(frozen=True)
class Pull:
    """One term's gradient norm on the student, as a multiple of the pixel loss's."""

    method: str
    term: str
    weight: float
    unweighted: float

    @property
    def weighted(self) -> float:
        """The same with the term's weight."""
        return self.weight * self.unweighted


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=measurable(), metavar="METHOD")
    parser.add_argument("--opt", type=Path, default=OPTIONS, help="student, teachers, images")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--iterations", type=int, default=200, help="of the student, pixel loss")
    parser.add_argument("--stage", type=int, default=20, help="of each stage, at most")
    parser.add_argument("--settle", type=int, default=50, help="of the methods' own parameters")
    parser.add_argument("--batches", type=int, default=8, help="to measure on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there")
    given = parser.parse_args(arguments)
    lengths = Lengths(given.iterations, given.stage, given.settle, given.batches)
    others = [override for override in given.overrides if not override.startswith("distillers.")]
    plain = model_of("Plain", given.opt, others)
    train(plain, batches_of(plain, 0), [Phase(1, plain.options.train.total_iter)], lengths.student)
    pulls = []
    for method in given.methods or measurable():
        model = model_of(method, given.opt, given.overrides)
        pulls += measure(model, method, plain.net_g.state_dict(), lengths)
        print(f"{method} measured", flush=True)
    print(table(pulls))
    if given.json is not None:
        write_text(given.json, json.dumps(record(pulls, plain, lengths), indent=1) + "\n")


def measurable() -> list[str]:
    """Return the methods that can learn with the one student that all are measured on."""
    return sorted(set(DISTILLERS) - set(NOT_MEASURED))


def model_of(method: str, file: Path, overrides: Sequence[str]) -> LSFDModel:
    """Build a method with its defaults, and the networks of an option file; always the same.

    A method that needs peers gets one like the student where the file names none.
    """
    overrides = [f"distillers=[{{type: {method}}}]", *overrides]
    loaded = load_options(file, overrides)
    if DISTILLERS[method].needs_peers and not loaded.options.network_p:
        overrides.append(f"network_p=[{json.dumps(loaded.raw['network_g'])}]")
        loaded = load_options(file, overrides)
    seed_everything(loaded.options.manual_seed)
    return LSFDModel(loaded)


def batches_of(model: LSFDModel, done: int) -> Batches:
    """Return the batches that a run of this option file would see after ``done`` iterations."""
    section = model.options.datasets.train
    dataset = PatchDataset(
        training_store(model.loaded, Processes()),
        section.gt_size,
        section.use_hflip,
        section.use_rot,
        model.options.manual_seed,
    )
    return iter(training_loader(model.loaded, dataset, Processes(), done))


def train(model: LSFDModel, batches: Batches, phases: list[Phase], iterations: int) -> None:
    """Take optimiser steps."""
    model.phases = phases
    for iteration in range(1, iterations + 1):
        model.feed_data(next(batches))
        model.optimize_parameters(iteration)


def measure(model: LSFDModel, method: str, student: dict[str, Any], lengths: Lengths) -> list[Pull]:
    """Give a method a trained student and measure the pull of its terms."""
    (distiller,) = model.step.distillers.values()
    assert isinstance(distiller, Distiller)
    # All methods are measured on the same batches, and learn from those behind them.
    measured = batches_of(model, lengths.student)
    batches = batches_of(model, lengths.student + lengths.measured)
    if model.peers:
        train_alone(model, distiller, lengths.student)
    model.net_g.load_state_dict(student)
    before = copy.deepcopy(model.net_g.state_dict())
    phases = short_stages(distiller, method.lower(), lengths.stage)
    if phases:
        train(model, batches, phases, phases[-1].last)
        model.net_g.load_state_dict(before)
    settle(model, distiller, batches, lengths.settle)
    norms: dict[str, float] = dict.fromkeys(["pixel", *distiller.default_weights], 0.0)
    for number in range(1, lengths.measured + 1):
        iteration = lengths.student + number
        for name, norm in gradient_norms(model, distiller, next(measured), iteration).items():
            norms[name] += norm
    return [
        Pull(method, term, weight, norms[term] / norms["pixel"])
        for term, weight in distiller.weights.items()
    ]


def train_alone(model: LSFDModel, distiller: Distiller, iterations: int) -> None:
    """Let student and peers learn from the pixel loss alone, as the student to measure on did."""
    weights, distiller.weights = distiller.weights, dict.fromkeys(distiller.weights, 0.0)
    train(model, batches_of(model, 0), [Phase(1, model.options.train.total_iter)], iterations)
    distiller.weights = weights


def short_stages(distiller: Distiller, name: str, longest: int) -> list[Phase]:
    """Return the phases of a method's stages, none longer than ``longest`` iterations."""
    phases: list[Phase] = []
    done = 0
    for stage in distiller.stages():
        length = min(stage.iterations, longest)
        if length > 0:
            short = replace(stage, iterations=length)
            phases.append(Phase(done + 1, done + length, name, short))
            done += length
    return phases


def settle(model: LSFDModel, distiller: Distiller, batches: Batches, iterations: int) -> None:
    """Train what a method owns; the student stays as it is."""
    own = [p for p in distiller.parameters() if p.requires_grad]
    if not own:
        return
    optimizer = torch.optim.Adam(own, lr=model.options.train.optim_g.lr)
    for iteration in range(1, iterations + 1):
        model.feed_data(next(batches))
        terms = distiller(observe(model, model.lq, model.gt, iteration))
        loss = torch.stack([distiller.weights[name] * value for name, value in terms.items()]).sum()
        gradients = torch.autograd.grad(loss, own, allow_unused=True)
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def gradient_norms(
    model: LSFDModel, distiller: Distiller, data: dict[str, Tensor], iteration: int
) -> dict[str, float]:
    """Return the norm of each loss's gradient on the student; the L1 pixel loss is ``pixel``."""
    model.feed_data(data)
    batch = observe(model, model.lq, model.gt, iteration)
    losses = {"pixel": (batch.student - model.gt).abs().mean(), **distiller(batch)}
    parameters = [p for p in model.net_g.parameters() if p.requires_grad]
    norms = {}
    for name, loss in losses.items():
        norms[name] = 0.0
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            each = [gradient.norm() for gradient in gradients if gradient is not None]
            norms[name] = float(torch.stack(each).norm()) if each else 0.0
    return norms


def table(pulls: Sequence[Pull]) -> str:
    """Return the Markdown table."""
    header = ["method", "term", "weight", "gradient / pixel loss", "weighted"]
    rows = [
        [p.method, p.term, f"{p.weight:g}", f"{p.unweighted:.3g}", f"{p.weighted:.3g}"]
        for p in pulls
    ]
    return markdown_table(header, rows)


def record(pulls: Sequence[Pull], plain: LSFDModel, lengths: Lengths) -> dict[str, Any]:
    """Return the numbers with what they depend on."""
    methods: dict[str, dict[str, Any]] = {}
    for pull in pulls:
        methods.setdefault(pull.method, {})[pull.term] = {
            "weight": pull.weight,
            "unweighted": pull.unweighted,
            "weighted": pull.weighted,
        }
    return {
        "options": Path(plain.loaded.source).name,
        "iterations": lengths.student,
        "longest_stage": lengths.stage,
        "settle": lengths.settle,
        "batches": lengths.measured,
        "seed": plain.options.manual_seed,
        **provenance.stamp(),
        "methods": methods,
    }


if __name__ == "__main__":
    sys.exit(exit_status("balance", main))
