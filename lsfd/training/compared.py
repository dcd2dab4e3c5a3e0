"""What is left of a comparison: records and costs in a folder, and what is made of them::

    compare.json            student, versions, hardware; of each method options, costs and scores
    records/LSFD_seed0.jsonl   each run's records
    compare.md              the tables
    compare.tex             the first one, for a paper
    compare.png             gain over training without a teacher
    time.png                score against the time that the training takes
    progress.png            the reconstruction loss on the way, beside the baseline's

The last five are made of options, costs and records alone, and can be made again without the runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from lsfd import provenance
from lsfd.atomic import write_bytes, write_text
from lsfd.errors import LsfdError
from lsfd.reporting.comparison import (
    MethodResult,
    comparison_latex,
    comparison_table,
    count_seeds,
    save_gains,
)
from lsfd.reporting.effort import save_progress, save_times
from lsfd.reporting.series import losses_of
from lsfd.reporting.significance import advantage_table
from lsfd.training.bar import Bar
from lsfd.training.planned import TEACHERS, PlannedRun
from lsfd.training.records import Record, read_records, strict
from lsfd.training.timing import StepCost, most_memory, step_cost

BASELINE = "Plain"
RIVALS = (BASELINE, "Output", "LSFD")
"""What each method is compared with image by image, where they are there."""
COST = "cost.json"
"""What a step of a run costs on the machine that makes the table; in the run's folder."""
ROUNDS = 3
"""How often a step's cost is measured."""
PIXEL = "l_pix"
"""The loss against the ground truth, which all methods have."""
SUMMARY, RECORDS = "compare.json", "records"
OVER_IMAGES = (
    "Gain in dB over seeds and images at once: mean, half of its 95 % interval (analysis of "
    "variance over both), and the share of images that are better. `?`: the interval holds zero, "
    "or one seed gives none."
)


def keep_comparison(folder: Path, runs: Sequence[PlannedRun]) -> None:
    """Copy the records of finished runs, and write down what else a table needs.

    Raises:
        LsfdError: a step cannot be timed, the disk is full, or the runs saw different images or
            teachers under the same paths.
    """
    begun = [_begun(run) for run in runs]
    _check_origins(runs, begun)
    for run in runs:
        target = folder / RECORDS / f"{run.folder.root.name}.jsonl"
        write_bytes(target, run.folder.records.read_bytes())
    options = runs[0].loaded.options
    first = {run.method: run for run in reversed(runs)}
    measure_costs(list(first.values()))
    methods = {name: _about(first[name]) for name in dict.fromkeys(run.method for run in runs)}
    seeds = sorted({run.seed for run in runs})
    for name, its in methods.items():
        result = _result(folder, name, its, seeds)
        its |= {"psnr_y": result.scores, "ssim_y": result.ssim}
    about = {
        "scale": options.scale,
        "total_iter": options.train.total_iter,
        "network_g": runs[0].loaded.raw["network_g"],
        "batch": options.datasets.train.batch_size_per_gpu,
        "gt_size": options.datasets.train.gt_size,
        "seeds": seeds,
        "trained_on": sorted({record.get("hardware", "unknown") for record in begun}),
        **provenance.stamp(),  # Of the costs; of each run its records have it.
        "methods": methods,
    }
    write_text(folder / SUMMARY, json.dumps(strict(about), indent=1) + "\n")


def _begun(run: PlannedRun) -> Record:
    """Return the record of a run's last start; that of an older version may lack parts."""
    return next(
        (each for each in reversed(read_records(run.folder.records)) if each["kind"] == "run"), {}
    )


def _check_origins(runs: Sequence[PlannedRun], begun: Sequence[Record]) -> None:
    """Compare the images and teachers of runs that were to have the same.

    A finished run is taken as it is, and files may have changed since.

    Raises:
        LsfdError: naming two runs that differ.
    """
    seen: dict[str, tuple[PlannedRun, Any]] = {}
    for run, record in zip(runs, begun, strict=True):
        raw = run.loaded.raw
        its = [("datasets.train", "images", raw["datasets"]["train"], record.get("fingerprint"))]
        if run.loaded.options.train.generations == 1:  # Otherwise its own student taught it last.
            teachers = raw.get("path", {}).get(TEACHERS)
            its.append((f"path.{TEACHERS}", "teachers", teachers, record.get("teachers")))
        for key, what, value, digest in its:
            if not digest:  # A run without a teacher, or a record of an older version.
                continue
            first, before = seen.setdefault(f"{key}={json.dumps(value)}", (run, digest))
            if before != digest:
                raise LsfdError(
                    f"{key}: {run.folder.root} was trained with other {what} than "
                    f"{first.folder.root}, though both name the same; remove the older folder, and "
                    "the same command trains that run again"
                )


def draw_comparison(folder: Path) -> str:
    """Write the tables and pictures of a comparison's folder; return the tables.

    Raises:
        LsfdError: it is not such a folder, or is damaged.
    """
    about, results = read_comparison(folder)
    names = [result.name for result in results]
    baseline = BASELINE if BASELINE in names else names[0]
    table = comparison_table(results, baseline)
    images = {result.name: result.images for result in results}
    seeds, rivals = count_seeds(results), dict.fromkeys((baseline, *RIVALS))
    found = [advantage_table(images, rival, seeds) for rival in rivals]
    by_image = [each for each in found if each is not None]
    if by_image:
        table = "\n".join([table, f"{OVER_IMAGES}\n", *by_image])
    write_text(folder / "compare.md", table)
    write_text(folder / "compare.tex", comparison_latex(results, baseline))
    title = f"PSNR-Y, x{about['scale']}, {about['total_iter']:,} iterations"
    save_gains(results, baseline, folder / "compare.png", title)
    save_times(results, baseline, folder / "time.png", f"PSNR-Y, x{about['scale']}")
    save_progress(results, baseline, folder / "progress.png")
    return table


def read_comparison(folder: Path) -> tuple[dict[str, Any], list[MethodResult]]:
    """Return what is known of a comparison, and what each of its methods reached.

    Raises:
        LsfdError: it is not such a folder, or is damaged.
    """
    file = folder / SUMMARY
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LsfdError(f"{folder} holds no comparison: it has no {SUMMARY}") from error
    except (RecursionError, ValueError):
        about = None
    if not _is_whole(about):
        raise LsfdError(f"{file} is damaged; make it again with lsfd compare")
    methods = about["methods"].items()
    return about, [_result(folder, name, its, about["seeds"]) for name, its in methods]


def _is_whole(about: Any) -> bool:
    """Return whether a summary has all that tables and pictures are made of."""
    if not isinstance(about, dict):
        return False
    seeds, methods = about.get("seeds"), about.get("methods")
    return (
        all(type(about.get(name)) is int for name in ("scale", "total_iter"))
        and isinstance(seeds, list)
        and bool(seeds)
        and all(type(seed) is int for seed in seeds)
        and isinstance(methods, dict)
        and bool(methods)
        and all(map(_is_whole_method, methods.values()))
    )


def _is_whole_method(its: Any) -> bool:
    costs = ("seconds_per_step", "peak_memory_bytes", "steps")
    if not isinstance(its, dict) or not {*costs, "distillers"} <= its.keys():
        return False
    distillers = its["distillers"] or []
    return all(its[name] is None or _is_finite(its[name]) for name in costs) and (
        isinstance(distillers, list)
        and all(isinstance(each, dict) and "type" in each for each in distillers)
    )


def _is_finite(value: Any) -> bool:
    """Return whether a value is a number that a float can hold."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _about(run: PlannedRun) -> dict[str, Any]:
    cost = _cost_of(run)
    return {
        "steps": run.iterations,
        "seconds_per_step": cost.seconds,
        "peak_memory_bytes": cost.memory,
        "distillers": run.loaded.raw.get("distillers"),
    }


def measure_costs(runs: Sequence[PlannedRun]) -> None:
    """Measure what a step costs, where that is not known yet, and keep it in the runs' folders.

    Runs take turns, and the median counts: other work on the machine, which comes and goes, meets
    all of them.

    Raises:
        LsfdError: a step cannot be timed.
    """
    unknown = [run for run in runs if not (run.folder.root / COST).exists()]
    turns = Bar(iterable=ROUNDS * unknown, desc="costs", unit="run", disable=None)
    measured = [step_cost(run.option_file) for run in turns]
    for index, run in enumerate(unknown):
        costs = measured[index :: len(unknown)]
        seconds = median(cost.seconds for cost in costs)
        cost = StepCost(seconds, most_memory(costs))
        write_text(run.folder.root / COST, json.dumps(asdict(cost)) + "\n")


def _cost_of(run: PlannedRun) -> StepCost:
    """Return what a step of a run costs, as it was measured."""
    file = run.folder.root / COST
    try:
        cost = json.loads(file.read_text(encoding="utf-8"))
        memory = cost["memory"]
        return StepCost(float(cost["seconds"]), None if memory is None else int(memory))
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise LsfdError(f"{file} is damaged; delete it, and it is measured anew") from error


def _result(folder: Path, name: str, about: dict[str, Any], seeds: Sequence[int]) -> MethodResult:
    files = {seed: folder / RECORDS / f"{name}_seed{seed}.jsonl" for seed in seeds}
    if missing := [file for file in files.values() if not file.is_file()]:
        raise LsfdError(f"{missing[0]} is missing; make it again with lsfd compare")
    runs = {seed: read_records(file, complete=True) for seed, file in files.items()}
    finals = {seed: final_validations(records) for seed, records in runs.items()}

    def by_set(value: Callable[[Record], Any]) -> dict[str, dict[int, Any]]:
        found: dict[str, dict[int, Any]] = {}
        for seed, records in finals.items():
            for record in records:
                if (its := value(record)) is not None:
                    found.setdefault(record["set"], {})[seed] = its
        return found

    return MethodResult(
        name,
        by_set(lambda record: record["scores"]["psnr"]),
        about["seconds_per_step"],
        about["peak_memory_bytes"],
        by_set(_image_scores),
        ssim=by_set(lambda record: record["scores"].get("ssim")),
        steps=about["steps"],
        losses={seed: losses_of(runs[seed]).get(PIXEL, {}) for seed in runs},
        is_taught=any(its["type"] != BASELINE for its in about["distillers"] or []),
    )


def _image_scores(record: Record) -> dict[str, float] | None:
    images = record.get("images", {})
    return {name: its["psnr"] for name, its in images.items() if "psnr" in its} or None


def final_scores(records: Sequence[Record]) -> dict[str, float]:
    """Return the PSNR of each validation set at the run's end; none where it was not finite."""
    return {record["set"]: record["scores"]["psnr"] for record in final_validations(records)}


def check_scores(scores: Mapping[str, float], sets: Iterable[str], whose: str) -> None:
    """Raise an error if a set has no PSNR.

    Args:
        scores: by set.
        sets: those that a table needs.
        whose: scores these are, for the error's beginning.

    Raises:
        LsfdError: naming the set.
    """
    for name in sets:
        if name not in scores:
            raise LsfdError(
                f"{whose}: no PSNR of {name}, because images were not finite, or the options ask "
                "for none; leave this one out, or train it anew with other options"
            )


def final_validations(records: Sequence[Record]) -> list[Record]:
    """Return the records of the validation at a run's end that have a PSNR."""
    last = max((record.get("iteration", 0) for record in records), default=0)
    return [
        record
        for record in records
        if record["kind"] == "val" and record["iteration"] == last and "psnr" in record["scores"]
    ]
