"""``lsfd report``: runs in one HTML file, with curves, scores and pictures to compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lsfd import provenance
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.cost import PAPER_OUTPUT
from lsfd.evaluation.scores import SetScores
from lsfd.evaluation.sets import BenchmarkSet, find_set
from lsfd.inference.device import pick_device
from lsfd.reporting.html_report import check_name, write_report
from lsfd.reporting.report_contents import Curves, Model, Picture, Report
from lsfd.terminal import visible
from lsfd.training.finished import FinishedRun, read_runs
from lsfd.training.report_attention import add_attention
from lsfd.training.report_models import ROUNDS, Contestant, contestants, measured
from lsfd.training.report_pictures import Excerpt, choose, picture
from lsfd.training.validation import validation_sets

NAME = "report.html"
PICTURES = 6


def report(
    folders: Sequence[Path],
    output: Path | None = None,
    *,
    sets: Sequence[str] | None = None,
    pictures: int = PICTURES,
    root: Path | None = None,
    device: str = "auto",
) -> str:
    """Write the report of some runs and return a sentence on the file.

    Args:
        folders: of the runs, all at one scale.
        output: the file; None: ``report.html`` in the folder of the one run, or in the folder
            that holds all of them.
        sets: names or folders of what to score on, see :func:`lsfd.evaluation.sets.find_set`;
            None: the runs' own validation sets; empty: nothing is scored or shown but the curves.
        pictures: how many to show, taken from the sets in turn.
        root: where the sets lie.
        device: where the networks run.

    Raises:
        LsfdError: a folder is not that of a run, a set is not there, a student is damaged, or the
            file cannot be written.
    """
    if pictures < 0:
        raise LsfdError(f"--pictures {pictures}: give 0 or more")
    runs = read_runs(folders)
    path = output or _default_output(runs)
    check_name(path)  # Now, not after minutes of scoring.
    scored = _sets(runs, sets, root)
    notes: list[str] = []
    models, shown = _results(runs, scored, pictures, device, notes) if scored else ([], [])
    contents = Report(
        title=_title([run.name for run in runs]),
        scale=runs[0].loaded.options.scale,
        runs=[_curves(run) for run in runs],
        models=models,
        sets=[each.name for each in scored],
        pictures=shown,
        notes=notes,
    )
    size = write_report(path, contents)
    counts = f"{_counted(len(runs), 'run')}, {_counted(len(shown), 'picture')}"
    return f"{path}: {counts}, {size / 1e6:.1f} MB; it needs no other file and no network"


def _default_output(runs: Sequence[FinishedRun]) -> Path:
    """Return where a report goes that nobody gave a name."""
    if len(runs) == 1:
        return runs[0].folder.root / NAME
    parents = {run.folder.root.parent for run in runs}
    if len(parents) > 1:
        raise LsfdError("the runs lie in different folders; name the report's file with -o")
    return parents.pop() / NAME


def _sets(
    runs: Sequence[FinishedRun], names: Sequence[str] | None, root: Path | None
) -> list[BenchmarkSet]:
    """Return the sets that were asked for, or the validation sets of all runs, each name once."""
    if names is not None:
        found = [find_set(name, root, runs[0].loaded.options.scale) for name in names]
    else:
        found = _validation_sets(runs)
    unique: dict[str, BenchmarkSet] = {}
    for each in found:
        unique.setdefault(each.name, each)
    return list(unique.values())


def _validation_sets(runs: Sequence[FinishedRun]) -> list[BenchmarkSet]:
    """Return the validation sets of all runs; those that runs share are read once."""
    found: list[BenchmarkSet] = []
    seen: list[object] = []
    for run in runs:
        sections = run.loaded.options.datasets.validation
        if sections in seen:
            continue
        seen.append(sections)
        try:
            found += validation_sets(run.loaded)
        except LsfdError as error:
            raise LsfdError(
                f"{error}; give the sets to score on with --sets, or --sets alone for none"
            ) from error
    return found


def _results(
    runs: Sequence[FinishedRun],
    sets: Sequence[BenchmarkSet],
    pictures: int,
    device: str,
    notes: list[str],
) -> tuple[list[Model], list[Picture]]:
    """Score and time all networks, and show what they make of some pictures."""
    scale = runs[0].loaded.options.scale
    found = contestants(runs, device, notes)
    excerpts = choose(sets, pictures, found)
    scores = {each.name: _scores(each, sets, excerpts) for each in found}
    for run in runs:
        add_attention(run, excerpts, pick_device(device), notes)
    notes.insert(0, _conditions(scale))
    return measured(found, scores, scale), [picture(each, found, scores) for each in excerpts]


def _scores(
    contestant: Contestant, sets: Sequence[BenchmarkSet], excerpts: Sequence[Excerpt]
) -> list[SetScores]:
    """Score a contestant on every set; the excerpts get their part of its results."""
    wanted = {(excerpt.source, excerpt.name): excerpt for excerpt in excerpts}
    scores = []
    for each in tqdm(sets, visible(contestant.name), disable=None):

        def keep(name: str, result: NDArray[np.uint8], source: str = each.name) -> None:
            if (source, name) in wanted:
                wanted[source, name].keep(contestant.name, result)

        scores.append(evaluate(contestant.upscale, each, each.scale, keep))
    return scores


def _conditions(scale: int) -> str:
    """Return how the numbers were measured, in words."""
    height, width = PAPER_OUTPUT
    return (
        f"PSNR and SSIM: luma of 8-bit images, {scale} pixels shaved off each side. Multiply-adds: "
        f"for an output of {width} × {height} pixels. Time: for a megapixel "  # noqa: RUF001
        f"of output, from pixels to pixels in float32, the median of {ROUNDS} rounds on "
        f"{provenance.hardware()}."
    )


def _curves(run: FinishedRun) -> Curves:
    return Curves(run.name, run.losses, run.scores, run.facts, run.loaded.to_yaml())


def _title(names: Sequence[str]) -> str:
    if len(names) > 3:
        return f"{len(names)} runs"
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), names[-1]])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
