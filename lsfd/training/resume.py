"""Whether a run may go on: with these options, these images, these teachers."""

from __future__ import annotations

from typing import Any

from lsfd.config.changes import TOTAL_ITER, Change, first_change
from lsfd.config.load import LoadedOptions, load_options
from lsfd.config.training import CosineAnnealingLR
from lsfd.errors import LsfdError
from lsfd.training.folder import RunFolder
from lsfd.training.origin import Origin
from lsfd.training.records import read_records

SHOWN = 16
"""Digits of a digest that are shown; all of them are compared."""

ON_PURPOSE = (
    "or go on from a checkpoint of it on purpose, with path.resume_state and without --auto_resume"
)


def other_options(folder: RunFolder, change: Change, where: object, advice: str) -> LsfdError:
    """Return the error about a run that was begun with other options.

    Args:
        folder: the run's.
        change: what differs.
        where: the option file that it was begun with.
        advice: what to do.
    """
    return LsfdError(f"{folder.root} was begun with other options ({where}): {change}; {advice}")


def check_options(
    folder: RunFolder, loaded: LoadedOptions, *, is_finished: bool = False
) -> Change | None:
    """Compare the options of a run that goes on with those that it began with.

    What decides nothing may differ (:mod:`lsfd.config.changes`), and so may ``train.total_iter``,
    unless the learning rates of the steps that are done followed from it: a run that goes on with
    another number ends like one that began with it.

    Args:
        folder: the run's.
        loaded: the options that it would go on with.
        is_finished: whether nothing more is trained, so that the number of iterations counts, too.

    Returns:
        The change of ``train.total_iter``, if there is one.

    Raises:
        LsfdError: naming the first option that differs, or the file with the old ones cannot be
            read.
    """
    if not folder.options.exists():
        raise LsfdError(
            f"{folder.root} has checkpoints, but no {folder.options.name} that says what it was "
            f"begun with; put that back, start under another name, {ON_PURPOSE}"
        )
    before, now = load_options(folder.options).options, loaded.options
    change = first_change(before, now, () if is_finished else (TOTAL_ITER,), scores=False)
    if change is not None:
        advice = f"restore it, start under another name, {ON_PURPOSE}"
        raise other_options(folder, change, folder.options, advice)
    if before.train.total_iter == now.train.total_iter:
        return None
    change = Change(TOTAL_ITER, before.train.total_iter, now.train.total_iter)
    if isinstance(now.train.scheduler, CosineAnnealingLR):
        why = "and the learning rates of the steps that are done followed from it"
        advice = f"{why} (CosineAnnealingLR); restore it, start under another name, {ON_PURPOSE}"
        raise other_options(folder, change, folder.options, advice)
    return change


def check_origin(folder: RunFolder, origin: Origin) -> None:
    """Compare images and teachers of a run that goes on with those that it was trained on.

    Raises:
        LsfdError: naming the beginnings of both digests.
    """
    begun = [record for record in read_records(folder.records) if record.get("kind") == "run"]
    before = begun[-1] if begun else {}  # That of an older version has no digests.
    _compare(
        folder, "datasets.train", "images", before.get("fingerprint"), origin.store.fingerprint
    )
    teachers = zip(before.get("teachers") or [], origin.teachers, strict=False)
    for number, (old, new) in enumerate(teachers):
        _compare(folder, f"path.pretrain_network_t.{number}", "teacher weights", old, new)


def _compare(folder: RunFolder, key: str, what: str, before: Any, now: str) -> None:
    if before not in (None, now):
        raise LsfdError(
            f"{key}: {folder.root} was trained with other {what} so far (digest "
            f"{str(before)[:SHOWN]}) than there are now ({now[:SHOWN]}); restore them, start under "
            f"another name, {ON_PURPOSE}"
        )
