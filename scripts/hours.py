"""How many hours the trainings of option files take on this machine, and on an assumed GPU.

    OMP_NUM_THREADS=1 python scripts/hours.py options/paper/*.yml [--batch 2] [--json FILE]

Every run of a file (of its section ``compare``, if it has one) is built, and steps of each of its
parts (the methods' stages, and what lies between the first and last steps of its methods) are taken
on random images, in a process of its own. Measured hours are the seconds of a step, the mean over
the run, x the steps: of training alone, without validation and without waiting for images. With
``--batch`` fewer patches go through, and time is scaled in proportion; memory is not.

Derived hours rest on no clock: the arithmetic of a step (convolutions and matrix products, forward
and backward, counted as a step of two patches runs, the mean over the run as well) x the steps / a
sustained rate that is assumed (``--tflops``). Neither needs weights or images: an absent teacher is
replaced by one with random weights, and LSFD_DATA may be unset.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from statistics import fmean

import torch
from torch.utils.flop_counter import FlopCounterMode

from lsfd import provenance
from lsfd.atomic import scratch_folder, write_text
from lsfd.cli import exit_status
from lsfd.config.load import LoadedOptions, load_options, options_from_dict
from lsfd.config.options import AUTO_TYPE
from lsfd.networks.build import build_network
from lsfd.reporting.tables import Cell, markdown_table
from lsfd.training.model import LSFDModel
from lsfd.training.planned import plan_runs
from lsfd.training.timing import parts, random_images, step_cost, students_in_row

TFLOPS = 46.8
"""Assumed sustained rate: 30 % of the 156 Tflop/s that an A100 has at most with TF32, which PyTorch
uses for the convolutions of single precision there."""

COUNTED_BATCH = 2
"""Patches of the step whose arithmetic is counted: some methods compare those of a batch."""


@dataclass(frozen=True)
class Job:
    """One row of a table: ``runs`` runs that differ in their seeds alone, and the first's options.

    The method is empty where an option file is of one run.
    """

    table: str
    method: str
    runs: int
    loaded: LoadedOptions


@dataclass(frozen=True)
class Row:
    """What one row of a table takes.

    Attributes:
        table: as in :class:`Job`, like the next two.
        method: see there.
        runs: see there.
        steps: of each run, over all students of ``train.generations``.
        batch: patches of a step.
        tflop: arithmetic of a step, in 10^12 operations; a multiply-add is two.
        derived_hours: of one run at the assumed rate.
        measured_batch: patches that were timed at once; None: not timed, as the following.
        seconds: of a step with all patches, scaled from those.
        memory: most bytes held with ``measured_batch`` patches.
        hours: of one run.
    """

    table: str
    method: str
    runs: int
    steps: int
    batch: int
    tflop: float
    derived_hours: float
    measured_batch: int | None = None
    seconds: float | None = None
    memory: int | None = None
    hours: float | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, count, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="option files")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--batch", type=int, metavar="N", help="patches to time (default: all)")
    parser.add_argument("--no_clock", action="store_true", help="count only, measure nothing")
    parser.add_argument("--tflops", type=float, default=TFLOPS, help="assumed rate (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there")
    given = parser.parse_args(arguments)
    if (given.batch is not None and given.batch < 1) or not given.tflops > 0:
        parser.error("--batch and --tflops must be above 0")
    os.environ.setdefault("LSFD_DATA", "unset")  # No image is read.
    rows = []
    with scratch_folder() as folder:
        for file in given.files:
            for job in jobs_of(file, given.overrides):
                rows.append(row_of(job, given, folder))
                print(f"{job.table} {job.method}: done", flush=True)
    print(f"\n{table(rows)}\n{explanation(given.tflops)}")
    about = {
        **provenance.stamp(),
        "date": date.today().isoformat(),
        "overrides": given.overrides,
        "tflops": given.tflops,
    }
    if given.json is not None:
        record = {**about, "rows": [asdict(row) for row in rows]}
        write_text(given.json, json.dumps(record, indent=1) + "\n")


def jobs_of(file: Path, overrides: Sequence[str]) -> list[Job]:
    """Return the rows of an option file's table, or its one run."""
    options = load_options(file, overrides).options
    if options.compare is None:
        return [Job(options.name, "", 1, load_options(file, overrides))]
    runs = plan_runs(file, overrides)
    counts = Counter(run.method for run in runs)
    first = {run.method: run.loaded for run in reversed(runs)}
    return [Job(options.name, method, runs, first[method]) for method, runs in counts.items()]


def row_of(job: Job, given: argparse.Namespace, folder: Path) -> Row:
    """Count a step's arithmetic, and time it if that is asked for."""
    train = job.loaded.options.train
    steps = train.generations * train.total_iter
    batch = job.loaded.options.datasets.train.batch_size_per_gpu * train.accumulate
    tflop = batch * operations_of_patch(job, folder) / 1e12
    row = Row(
        job.table, job.method, job.runs, steps, batch, tflop,
        derived_hours=steps * tflop / given.tflops / 3600,
    )  # fmt: skip
    if given.no_clock:
        return row
    patches = given.batch or batch
    file = folder / "timed.yml"
    write_text(file, without_files(job, patches, folder).to_yaml())
    cost = step_cost(file)
    seconds = cost.seconds * batch / patches
    return replace(
        row,
        measured_batch=patches,
        seconds=seconds,
        memory=cost.memory,
        hours=steps * seconds / 3600,
    )


def operations_of_patch(job: Job, folder: Path) -> float:
    """Return the operations of a step for one patch, counted on the CPU: the run's mean."""
    loaded = without_files(job, COUNTED_BATCH, folder)
    data = {**loaded.raw, "num_gpu": 0}
    data["train"] = {**data["train"], "compile": False, "precision": "auto"}
    students = students_in_row(options_from_dict(data, loaded.source), folder)
    return fmean(map(operations_of_student, students)) / COUNTED_BATCH


def operations_of_student(loaded: LoadedOptions) -> float:
    """Return the operations of a step: the mean over the training of one student."""
    model = LSFDModel(loaded)
    total = 0
    for part in parts(loaded.options, model.phases):  # A teacher may be there in some of them only.
        with FlopCounterMode(display=False) as counter:
            model.feed_data(random_images(loaded.options, COUNTED_BATCH))
            model.optimize_parameters(part[-1])
        total += len(part) * counter.get_total_flops()
    return total / loaded.options.train.total_iter


def without_files(job: Job, batch: int, folder: Path) -> LoadedOptions:
    """Return a run's options for steps of ``batch`` patches, with teachers whose files exist."""
    loaded, data = job.loaded, copy.deepcopy(job.loaded.raw)
    data.pop("compare", None)
    data["datasets"]["train"]["batch_size_per_gpu"] = batch
    data["train"]["accumulate"] = 1
    teachers = [
        file if Path(file).is_file() else fresh_teacher(loaded, index, folder)
        for index, file in enumerate(loaded.options.path.pretrain_network_t)
    ]
    own = {"pretrain_network_t": teachers, "pretrain_network_g": None, "teacher_cache": None}
    data["path"] = {**(data.get("path") or {}), **own}
    return options_from_dict(data, loaded.source)


def fresh_teacher(loaded: LoadedOptions, index: int, folder: Path) -> str:
    """Write a checkpoint with random weights for a teacher, unless it is there; return its path."""
    section = loaded.options.network_t[index]
    if section.type == AUTO_TYPE:
        absent = loaded.options.path.pretrain_network_t[index]
        raise loaded.error(
            "path.pretrain_network_t", f"{absent} is not there, and only it says what its type is"
        )
    network = {"type": section.type, **section.arguments}
    name = hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()
    file = folder / f"{name}.pth"
    if not file.exists():
        torch.save(build_network(network, f"network_t.{index}").state_dict(), file)
    return str(file)


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table, with a line for all runs of each option file."""
    header = [
        "table", "runs", "steps", "Tflop/step", "hours (derived)",
        "s/step", "hours (measured)", "GiB", "at a batch of",
    ]  # fmt: skip
    lines: list[list[Cell]] = []
    for name in dict.fromkeys(row.table for row in rows):
        own = [row for row in rows if row.table == name]
        lines += [line(row) for row in own]
        if len(own) > 1 or own[0].runs > 1:
            derived = sum(row.runs * row.derived_hours for row in own)
            measured = [row.runs * row.hours for row in own if row.hours is not None]
            hours = sum(measured) if len(measured) == len(own) else None
            runs = sum(row.runs for row in own)
            lines.append([f"{name}, all", runs, None, None, derived, None, hours, None, None])
    return markdown_table(header, lines, digits={4: 1, 6: 1})


def explanation(tflops: float) -> str:
    """Return what the table's hours are."""
    return (
        f"Hours of one run; in lines with `all`, of all runs of a table. Derived: at {tflops:g} "
        "Tflop/s, a rate that is assumed. Measured: seconds of a step x steps, on "
        f"{provenance.hardware()}; seconds are of a whole batch, scaled from the one named last."
    )


def line(row: Row) -> list[Cell]:
    """Return a row's cells; hours are those of one run."""
    return [
        f"{row.table} {row.method}".strip(), row.runs, row.steps, row.tflop, row.derived_hours,
        row.seconds, row.hours, row.memory and row.memory / 2**30, row.measured_batch,
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(exit_status("hours", main))
