"""``lsfd compare``: methods x seeds at equal budget, then one table and one picture."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lsfd import provenance
from lsfd.atomic import write_bytes, write_text
from lsfd.errors import LsfdError
from lsfd.reporting.comparison import MethodResult, comparison_table, save_gains
from lsfd.reporting.significance import advantage_table
from lsfd.terminal import say
from lsfd.training.jobs import train_all
from lsfd.training.planned import CACHE, PlannedRun, plan_runs
from lsfd.training.records import Record, read_records, strict
from lsfd.training.run import INTERRUPTED
from lsfd.training.timing import StepCost, step_cost

BASELINE, OUTPUT = "Plain", "Output"
OVER_IMAGES = (
    "Gain in dB over seeds and images at once: mean, 95 % interval of a bootstrap over both, and "
    "the share of images that are better. `?`: the interval holds zero."
)
COST = "cost.json"
"""What a step of a run costs on the machine that makes the table; in the run's folder."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        option_file: an option file with the section ``compare``.
        overrides: changes of what all runs share.
        methods: which methods; None: all that the file lists.
        seeds: which seeds; None: those of the file.
        output: folder for ``compare.md``, ``compare.json``, ``compare.png`` and the runs' records;
            None: beside the runs.
        keep_teacher_results: whether runs of one seed share what the teachers gave.
    """

    option_file: Path
    overrides: Sequence[str] = ()
    methods: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    output: Path | None = None
    keep_teacher_results: bool = True

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """All runs, seed by seed.

        Raises:
            LsfdError: as :func:`~lsfd.training.planned.plan_runs`.
        """
        return plan_runs(
            self.option_file, self.overrides, self.methods, self.seeds,
            keep_teacher_results=self.keep_teacher_results,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the folders of the runs lie."""
        return self.runs[0].folder.root.parent

    @property
    def unfinished(self) -> list[PlannedRun]:
        """Those of the runs whose students are not there yet."""
        return [run for run in self.runs if not run.is_finished()]

    def command(self, *arguments: str) -> str:
        """Return the command line that asks for this comparison, with further arguments."""
        words = ["lsfd", "compare", "-opt", str(self.option_file)]
        if self.overrides:
            words += ["--set", *self.overrides]
        if self.methods:
            words += ["--methods", *self.methods]
        if self.seeds:
            words += ["--seeds", *map(str, self.seeds)]
        if self.output is not None:
            words += ["-o", str(self.output)]
        if not self.keep_teacher_results:
            words.append("--no_teacher_cache")
        return shlex.join([*words, *arguments])

    def train(self, runs: Sequence[PlannedRun], jobs: int) -> int:
        """Train some of the runs, seed by seed.

        Args:
            runs: which.
            jobs: how many train at once.

        Returns:
            Exit status: 0, or 128 + the signal that stopped it.

        Raises:
            LsfdError: runs failed, or another process trains them.
        """
        for seed in dict.fromkeys(run.seed for run in runs):
            received = train_all([run for run in runs if run.seed == seed], jobs)
            if received:
                say("stopped; all runs are saved: give the same command to go on")
                return INTERRUPTED + received
            self.forget_teacher_results(seed)
        return 0

    def forget_teacher_results(self, seed: int) -> None:
        """Delete what the teachers gave to a seed's runs, if nobody is going to ask for it again.

        It is large. Runs that are not finished may be in the hands of another process.
        """
        if all(run.seed != seed for run in self.unfinished):
            shutil.rmtree(self.folder / CACHE / f"seed{seed}", ignore_errors=True)

    def show(self) -> None:
        """Write and print the comparison of the runs, which are finished."""
        output = self.output or self.folder
        say(write_comparison(self.runs, output))
        say(f"written to {output}")


def compare(comparison: Comparison, jobs: int = 1) -> int:
    """Train what is not trained yet, then write and print the comparison.

    Args:
        comparison: what is compared.
        jobs: how many runs train at once.

    Returns:
        Exit status: 0, or 128 + the signal that stopped it.

    Raises:
        LsfdError: the options are wrong, or runs failed.
    """
    status = comparison.train(comparison.runs, jobs)
    if status == 0:
        comparison.show()
    return status


def write_comparison(runs: Sequence[PlannedRun], output: Path) -> str:
    """Write table, numbers, picture and records of finished runs; return the table."""
    methods = list(dict.fromkeys(run.method for run in runs))
    results = [result_of(name, [run for run in runs if run.method == name]) for name in methods]
    options = runs[0].loaded.options
    budget = f"x{options.scale}, {options.train.total_iter:,} iterations"
    baseline = BASELINE if BASELINE in methods else methods[0]
    table = comparison_table(results, baseline)
    by_image = advantage_table(
        {result.name: result.images for result in results}, [baseline, OUTPUT]
    )
    if by_image is not None:
        table += f"\n{OVER_IMAGES}\n\n{by_image}"
    write_text(output / "compare.md", table)
    write_text(output / "compare.json", json.dumps(strict(numbers(runs, results)), indent=1) + "\n")
    save_gains(results, baseline, output / "compare.png", f"PSNR-Y, {budget}")
    for run in runs:
        target = output / "records" / f"{run.folder.root.name}.jsonl"
        write_bytes(target, run.folder.records.read_bytes())
    return table


def result_of(method: str, runs: Sequence[PlannedRun]) -> MethodResult:
    """Return what a method's finished runs reached, and what a step of the first one costs."""
    scores: dict[str, dict[int, float]] = {}
    images: dict[str, dict[int, dict[str, float]]] = {}
    for run in runs:
        for record in final_validations(read_records(run.folder.records, complete=True)):
            scores.setdefault(record["set"], {})[run.seed] = record["scores"]["psnr"]
            its = record.get("images", {}).items()
            images.setdefault(record["set"], {})[run.seed] = {
                name: each["psnr"] for name, each in its if "psnr" in each
            }
    cost = _cost_of(runs[0])
    return MethodResult(method, scores, cost.seconds, cost.memory, images)


def _cost_of(run: PlannedRun) -> StepCost:
    """Return what a step of a run costs, measured once and kept in its folder."""
    file = run.folder.root / COST
    if not file.exists():
        write_text(file, json.dumps(asdict(step_cost(run.option_file))) + "\n")
    try:
        cost = json.loads(file.read_text(encoding="utf-8"))
        return StepCost(float(cost["seconds"]), int(cost["memory"]))
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise LsfdError(f"{file} is damaged; delete it, and it is measured anew") from error


def final_scores(records: Sequence[Record]) -> dict[str, float]:
    """Return the PSNR of each validation set at the run's end; none where it was not finite."""
    return {record["set"]: record["scores"]["psnr"] for record in final_validations(records)}


def final_validations(records: Sequence[Record]) -> list[Record]:
    """Return the records of the validation at a run's end that have a PSNR."""
    last = max((record.get("iteration", 0) for record in records), default=0)
    return [
        record
        for record in records
        if record["kind"] == "val" and record["iteration"] == last and "psnr" in record["scores"]
    ]


def numbers(runs: Sequence[PlannedRun], results: Sequence[MethodResult]) -> dict[str, Any]:
    """Return everything measured, and where it comes from."""
    options = runs[0].loaded.options
    return {
        "scale": options.scale,
        "total_iter": options.train.total_iter,
        **provenance.stamp(),
        "methods": {
            result.name: {
                "psnr_y": {name: dict(by_seed) for name, by_seed in result.scores.items()},
                "seconds_per_step": result.seconds,
                "peak_memory_bytes": result.memory,
                "distillers": _distillers(runs, result.name),
            }
            for result in results
        },
    }


def _distillers(runs: Sequence[PlannedRun], method: str) -> Any:
    return next(run for run in runs if run.method == method).loaded.raw.get("distillers")
