"""Regenerate results/adaptation: a trained student learns degraded images and forgets clean ones.

    LSFD_DATA=... python scripts/adaptation.py [--source STUDENT] [--iterations 600] [--jobs 2]

From one student (by default that of options/edsr_x4_lsfd.yml) every method of options/adapt_x4.yml
adapts to blur, to noise and to JPEG, with every seed, at equal budget. All students are scored on
the degraded images and on clean ones of Set5 and Set14, and compared with the student that they
began as. Runs that are finished are not run again; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lsfd import provenance
from lsfd.atomic import write_bytes, write_text
from lsfd.cli import exit_status
from lsfd.errors import LsfdError
from lsfd.imaging.degradation import Degradation
from lsfd.networks.student_file import StudentCard, read_student
from lsfd.reporting.style import MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import markdown_table
from lsfd.training.compared import check_scores, final_scores
from lsfd.training.jobs import train_all
from lsfd.training.planned import PlannedRun, plan_runs
from lsfd.training.records import read_records
from lsfd.training.resume import SHOWN
from lsfd.training.run import INTERRUPTED
from lsfd.training.teacher_cache import weights_digest
from lsfd.training.validation import validate, validation_sets

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ROOT / "options" / "adapt_x4.yml"
SOURCE_OPTIONS = "options/edsr_x4_lsfd.yml"
KINDS = {
    "blur": Degradation(blur=1.6),
    "noise": Degradation(noise=10),
    "jpeg": Degradation(jpeg=40),
}
NEW_SETS = {"val": "Set5 degraded", "val_3": "Set14 degraded"}
"""Keys and names of the degraded sets in the option file."""
OLD_SETS = ("Set5", "Set14")
SETS = (*NEW_SETS.values(), *OLD_SETS)

Scores = Mapping[str, float]
"""Set name -> PSNR-Y in dB."""


@dataclass(frozen=True)
class Adaptation:
    """What became of the student on one kind of images.

    Attributes:
        kind: of degradation.
        before: the scores that it began with.
        after: method -> seed -> scores.
    """

    kind: str
    before: Scores
    after: Mapping[str, Mapping[int, Scores]]

    def changes(self, method: str, names: Sequence[str]) -> list[float]:
        """Return for each seed how many dB a method gained, averaged over sets."""
        return [
            float(np.mean([scores[name] - self.before[name] for name in names]))
            for scores in self.after[method].values()
        ]


def main() -> int:
    """Train what is missing, score, write; return the exit status."""
    arguments = parse_arguments()
    network, card = read_student(arguments.source)
    runs = {kind: plan(kind, card, arguments) for kind in arguments.kinds}
    for of_kind in runs.values():
        check_source(arguments.source, network, of_kind)
    received = train_all(by_seed(runs.values()), arguments.jobs)
    if received:
        print("stopped; all runs are saved: give the same command to go on")
        return INTERRUPTED + received
    results = []
    for kind, of_kind in runs.items():
        loaded = of_kind[0].loaded
        scores = validate(network, validation_sets(loaded), loaded).scores
        before = {name: values["psnr"] for name, values in scores.items() if "psnr" in values}
        check_scores(before, SETS, f"{kind}, {arguments.source}")
        results.append(Adaptation(kind, before, scores_after(of_kind)))
    write_results(results, runs, card, arguments)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the arguments, with a source that exists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("--source", type=Path, help="the student that adapts")
    parser.add_argument("--iterations", type=int, default=600, help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the option file")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=1, help="runs that train at once")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "adaptation")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change options of all runs"
    )
    arguments = parser.parse_args()
    if arguments.source is None:
        name = Path(SOURCE_OPTIONS).stem
        arguments.source = arguments.experiments / name / f"{name}.safetensors"
    if not arguments.source.exists():
        parser.error(
            f"{arguments.source} does not exist; train it by 'lsfd train -opt {SOURCE_OPTIONS}', "
            "or give another student by --source"
        )
    return arguments


def plan(kind: str, card: StudentCard, arguments: argparse.Namespace) -> list[PlannedRun]:
    """Return the runs of one kind of images."""
    strengths = {name: value for name, value in asdict(KINDS[kind]).items() if value is not None}
    changes: dict[str, Any] = {
        "name": f"{OPTIONS.stem}_{kind}",
        "path.experiments_root": str(arguments.experiments),
        "path.pretrain_network_g": str(arguments.source),
        "path.pretrain_network_t": str(arguments.source),
        "network_g": card.architecture,
        "network_t": card.architecture,
        "train.total_iter": arguments.iterations,
        "val.val_freq": arguments.iterations,
        **{f"datasets.{key}.degradation": strengths for key in ("train", *NEW_SETS)},
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return plan_runs(
        OPTIONS,
        [*overrides, *arguments.set],
        seeds=arguments.seeds,
        keep_teacher_results=False,  # A teacher as small as the student is faster than a disk.
    )


def check_source(source: Path, network: nn.Module, runs: Sequence[PlannedRun]) -> None:
    """Note beside the runs of a kind which student they begin as; refuse another one.

    Records tell it, too, except those of runs without a teacher and of older versions.

    Raises:
        LsfdError: runs began as another student, which scores would be compared with this one's.
    """
    folder = runs[0].folder.root.parent
    note = folder / "source.sha256"
    records = [record for run in runs for record in read_records(run.folder.records)]
    known = {digest for record in records for digest in record.get("teachers", ())}
    if note.exists() and any(run.folder.root.exists() for run in runs):
        known.add(note.read_text(encoding="utf-8").strip())
    now = weights_digest(network)
    others = known - {now}
    if others:
        raise LsfdError(
            f"runs in {folder} began as another student (digest of its weights: "
            f"{others.pop()[:SHOWN]}) than {source} ({now[:SHOWN]}); give that one by --source, "
            "give another folder by --experiments, or remove that one"
        )
    write_text(note, f"{now}\n")


def by_seed(plans: Any) -> list[PlannedRun]:
    """Return all runs, seed by seed, so that there is something of everything early."""
    return sorted((run for runs in plans for run in runs), key=lambda run: run.seed)


def scores_after(runs: Sequence[PlannedRun]) -> dict[str, dict[int, Scores]]:
    """Return what finished runs reached: method -> seed -> scores.

    Raises:
        LsfdError: a run has no score on a set.
    """
    after: dict[str, dict[int, Scores]] = {}
    for run in runs:
        scores = final_scores(read_records(run.folder.records))
        check_scores(scores, SETS, f"{run.method}, seed {run.seed} ({run.folder.root})")
        after.setdefault(run.method, {})[run.seed] = scores
    return after


# Writing


def write_results(
    results: Sequence[Adaptation],
    runs: Mapping[str, Sequence[PlannedRun]],
    card: StudentCard,
    arguments: argparse.Namespace,
) -> None:
    """Write page, numbers, picture and records; print the table."""
    options = next(iter(runs.values()))[0].loaded.options
    about = {
        "date": date.today().isoformat(),
        **provenance.stamp(),
        "iterations": options.train.total_iter,
        "seeds": sorted({run.seed for run in by_seed(runs.values())}),
        "gt_size": options.datasets.train.gt_size,
        "batch_size": options.datasets.train.batch_size_per_gpu,
        "source": {"file": arguments.source.name, **card.model_dump()},
        "methods": {run.method: run.loaded.raw["distillers"] for run in next(iter(runs.values()))},
    }
    numbers = {
        result.kind: {
            "degradation": str(KINDS[result.kind]),
            "before": result.before,
            "after": result.after,
        }
        for result in results
    }
    text = json.dumps({**about, "psnr_y": numbers}, indent=1, default=str)
    write_text(arguments.output / "results.json", text + "\n")
    write_text(arguments.output / "table.md", page(results, about))
    draw(results, arguments.output / "adaptation.png")
    for kind, of_kind in runs.items():
        for run in of_kind:
            target = arguments.output / "records" / f"{kind}_{run.folder.root.name}.jsonl"
            write_bytes(target, run.folder.records.read_bytes())
    print(table(results))
    print(f"written to {os.path.relpath(arguments.output)}")


def page(results: Sequence[Adaptation], about: Mapping[str, Any]) -> str:
    """Return the page that explains the table."""
    seeds = len(about["seeds"])
    return f"""# Adaptation: what a student gains on degraded images and forgets on clean ones

Written by `python scripts/adaptation.py`; all numbers are also in [`results.json`](results.json).

One student ({about["source"]["method"]}; trained on {about["source"]["data"]}; its LR images:
MATLAB's bicubic) adapts to each degradation with {about["iterations"]:,} iterations on degraded
images alone, each of {about["batch_size"]} patches of {about["gt_size"]} x {about["gt_size"]} HR
pixels. PSNR-Y in dB: *before*, as the student was; then the change against that, mean ± standard
deviation over {seeds} seed{"s" if seeds > 1 else ""}. *new*: the degraded images; *old*: the clean
ones, where a loss is what the student forgot.

{table(results)}
![gain on degraded images against the change on clean ones](adaptation.png)

* *Fine-tuning*: L1 to the ground truth alone.
* *Output*: as well L1 to what the student said before, a third as strong.
* *FReTAL*: as well the statistics of its features (the first iterations only look at the images).

Blur: Gaussian, its standard deviation in HR pixels, before the bicubic. Noise: white Gaussian, its
standard deviation in grey levels, the same in all runs. JPEG: quality. What was run:
{about["hardware"]}; torch {about["versions"]["torch"]}; {about["date"]}; commit {about["commit"]}.
"""


def table(results: Sequence[Adaptation]) -> str:
    """Return the changes on each set, below the scores before."""
    names = [f"new: {name.split()[0]}" for name in NEW_SETS.values()]
    header = ["degradation", "method", *names, *(f"old: {name}" for name in OLD_SETS)]
    rows = []
    for result in results:
        start = [f"{result.before[name]:.2f}" for name in SETS]
        rows.append([str(KINDS[result.kind]), "before", *start])
        for method in result.after:
            changes = [spread(result.changes(method, [name])) for name in SETS]
            rows.append([str(KINDS[result.kind]), method, *changes])
    return markdown_table(header, rows)


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation of changes."""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.3f}{deviation}"


def draw(results: Sequence[Adaptation], path: Path) -> None:
    """Draw the change on new images over that on old ones, a panel for each degradation."""
    with saved_figure(path, 3.8) as figure:
        panels = figure.subplots(1, len(results), squeeze=False)[0]
        for axes, result in zip(panels, results, strict=True):
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.axvline(0, color=MUTED, linewidth=0.8)
            axes.plot(0, 0, "x", color=MUTED, label="before")
            for method, color in zip(result.after, PALETTE, strict=False):
                old, new = (
                    result.changes(method, names) for names in (OLD_SETS, list(NEW_SETS.values()))
                )
                axes.plot(old, new, "o", color=color, markersize=3, alpha=0.5)
                axes.plot(np.mean(old), np.mean(new), "D", color=color, markersize=6, label=method)
            axes.set_title(str(KINDS[result.kind]))
            axes.set_xlabel("change on clean images (dB)")
            axes.margins(0.15)
        panels[0].set_ylabel("gain on degraded images (dB)")
        lines = panels[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=len(lines[0]))


if __name__ == "__main__":
    sys.exit(exit_status("adaptation", main))
