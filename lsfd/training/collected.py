"""Finished runs of one comparison from the disks of several hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsfd.atomic import working_folder
from lsfd.config.changes import first_change
from lsfd.config.load import load_options
from lsfd.errors import LsfdError
from lsfd.training.compared import COST
from lsfd.training.folder import RunFolder
from lsfd.training.planned import PlannedRun
from lsfd.training.records import read_records


def collect(runs: Sequence[PlannedRun], folders: Sequence[Path]) -> None:
    """Copy finished runs to where they belong, unless they are there.

    Args:
        runs: which.
        folders: where the folders of finished runs lie; the first one that has a run counts.

    Raises:
        LsfdError: a folder holds no finished run of these, a run was trained with other options
            (folders may have other paths, but the same names at their ends), or has been begun
            here, too.
    """
    for folder in folders:
        found = [run for run in runs if _there(run, folder).student.exists()]
        if not found:
            names = ", ".join(run.folder.root.name for run in runs[:2])
            raise LsfdError(
                f"--from: {folder} holds no finished run of this comparison; give the folder in "
                f"which its runs lie ({names} ...)"
            )
        for run in found:
            if not run.is_finished():
                _check_options(run, _there(run, folder))
                _check_images(run, _there(run, folder), runs)
                _copy(run, _there(run, folder))


def _there(run: PlannedRun, folder: Path) -> RunFolder:
    return RunFolder(folder / run.folder.root.name)


def _copy(run: PlannedRun, source: RunFolder) -> None:
    """Copy a run's folder in one step, without its checkpoints, which nobody goes on from.

    What a step costs is left behind, too: one machine measures it for the whole table.
    """
    root = run.folder.root
    if root.exists():
        raise LsfdError(
            f"{root} has been begun, and is finished in {source.root}; remove one of them"
        )
    run.write_options()
    try:
        with working_folder(root) as work:
            left_out = shutil.ignore_patterns(source.states.name, COST)
            shutil.copytree(source.root, work / "copied", ignore=left_out)
            os.rename(work / "copied", root)
    except (OSError, shutil.Error) as error:
        raise LsfdError(f"{source.root} cannot be copied to {root}: {error}") from error


def _check_options(run: PlannedRun, source: RunFolder) -> None:
    """Raise an error that names an option in which a run differs from the one planned."""
    change = first_change(load_options(source.options).options, run.loaded.options)
    if change is not None:
        raise LsfdError(
            f"{source.options}: {change.name} is {change.before}, and {change.now} in the run that "
            "is to be merged; train both with the same options"
        )


def _check_images(run: PlannedRun, source: RunFolder, runs: Sequence[PlannedRun]) -> None:
    """Raise an error if a host's training images are not those of the runs that are there."""
    theirs = _images(source)
    for other in runs:
        if not other.is_finished() or _training_set(other) != _training_set(run):
            continue
        ours = _images(other.folder)
        if theirs != ours:
            raise LsfdError(
                f"{source.root} was trained on other images ({theirs}) than {other.folder.root} "
                f"({ours}); train both on the same"
            )


def _training_set(run: PlannedRun) -> Any:
    return run.loaded.raw["datasets"]["train"]


def _images(folder: RunFolder) -> str | None:
    """Return name, number and fingerprint of the images that a run was trained on."""
    records = read_records(folder.records, complete=True)
    return next((record["data"] for record in records if record["kind"] == "run"), None)
