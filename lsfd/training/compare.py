"""``lsfd compare``: methods x seeds at equal budget, then one table and one picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lsfd import provenance
from lsfd.atomic import write_text
from lsfd.reporting.comparison import MethodResult, comparison_table, save_gains
from lsfd.training.jobs import train_all
from lsfd.training.planned import CACHE, PlannedRun, plan_runs
from lsfd.training.records import Record, read_records
from lsfd.training.run import INTERRUPTED
from lsfd.training.timing import StepCost, step_cost

BASELINE = "Plain"


def compare(
    option_file: Path,
    overrides: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    *,
    output: Path | None = None,
    jobs: int = 1,
    keep_teacher_results: bool = True,
) -> int:
    """Train what is not trained yet, then write and print the comparison.

    Args:
        option_file: an option file with the section ``compare``.
        overrides: changes of what all runs share.
        methods: which methods; None: all that the file lists.
        seeds: which seeds; None: those of the file.
        output: folder for ``compare.md``, ``compare.json``, ``compare.png`` and the runs' records;
            None: beside the runs.
        jobs: how many runs train at once.
        keep_teacher_results: whether runs share what the teachers gave.

    Returns:
        Exit status: 0, or 128 + the signal that stopped it.

    Raises:
        LsfdError: the options are wrong, or runs failed.
    """
    runs = plan_runs(
        option_file, overrides, methods, seeds, keep_teacher_results=keep_teacher_results
    )
    for seed in dict.fromkeys(run.seed for run in runs):
        of_seed = [run for run in runs if run.seed == seed]
        received = train_all(of_seed, jobs)
        if received:
            print("stopped; all runs are saved: give the same command to go on")
            return INTERRUPTED + received
        # Nobody asks for this seed's teacher results again, and they are large.
        shutil.rmtree(runs[0].folder.root.parent / CACHE / f"seed{seed}", ignore_errors=True)
    output = output or runs[0].folder.root.parent
    print(write_comparison(runs, output))
    print(f"written to {output}")
    return 0


def write_comparison(runs: Sequence[PlannedRun], output: Path) -> str:
    """Write table, numbers, picture and records of finished runs; return the table."""
    methods = list(dict.fromkeys(run.method for run in runs))
    results = [result_of(name, [run for run in runs if run.method == name]) for name in methods]
    options = runs[0].loaded.options
    budget = f"x{options.scale}, {options.train.total_iter:,} iterations"
    baseline = BASELINE if BASELINE in methods else methods[0]
    table = comparison_table(results, baseline)
    write_text(output / "compare.md", table)
    write_text(output / "compare.json", json.dumps(numbers(runs, results), indent=1) + "\n")
    save_gains(results, baseline, output / "compare.png", f"PSNR-Y, {budget}")
    for run in runs:
        target = output / "records" / f"{run.folder.root.name}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.folder.records, target)
    return table


def result_of(method: str, runs: Sequence[PlannedRun]) -> MethodResult:
    """Return what a method's finished runs reached, and what a step of the first one costs."""
    scores: dict[str, dict[int, float]] = {}
    for run in runs:
        for name, value in final_scores(read_records(run.folder.records)).items():
            scores.setdefault(name, {})[run.seed] = value
    cost = _cost_of(runs[0])
    return MethodResult(method, scores, cost.seconds, cost.memory)


def _cost_of(run: PlannedRun) -> StepCost:
    """Return what a step of a run costs, measured once and kept in its folder."""
    file = run.folder.root / "cost.json"
    if not file.exists():
        write_text(file, json.dumps(asdict(step_cost(run.option_file))) + "\n")
    return StepCost(**json.loads(file.read_text(encoding="utf-8")))


def final_scores(records: Sequence[Record]) -> dict[str, float]:
    """Return the last PSNR of each validation set."""
    found: dict[str, float] = {}
    for record in records:
        if record["kind"] == "val" and "psnr" in record["scores"]:
            found[record["set"]] = record["scores"]["psnr"]
    return found


def numbers(runs: Sequence[PlannedRun], results: Sequence[MethodResult]) -> dict[str, Any]:
    """Return everything measured, and where it comes from."""
    options = runs[0].loaded.options
    return {
        "scale": options.scale,
        "total_iter": options.train.total_iter,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
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
