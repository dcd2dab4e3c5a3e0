"""A run that was trained, read back from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lsfd.config.load import LoadedOptions, load_options
from lsfd.errors import LsfdError
from lsfd.reporting.series import Points, losses_of, scores_of
from lsfd.training.folder import RunFolder
from lsfd.training.records import Record, read_records


@dataclass(frozen=True)
class FinishedRun:
    """What is left of a run, finished or stopped.

    Attributes:
        name: to tell it from the other runs by.
        folder: where it lies.
        loaded: its option file.
        losses: name -> iteration -> value.
        scores: validation set -> iteration -> PSNR in dB.
        facts: what else it wrote down, as (name, value).
        student: the file of its student: the finished one, else that of its last checkpoint; None
            if there is neither.
    """

    name: str
    folder: RunFolder
    loaded: LoadedOptions
    losses: dict[str, Points]
    scores: dict[str, Points]
    facts: tuple[tuple[str, str], ...]
    student: Path | None


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Read the folders of runs; where two have one name, the folders above them tell them apart.

    Raises:
        LsfdError: a folder is not that of a run or is damaged, is named twice, or the runs enlarge
            by different factors.
    """
    roots = [folder.resolve() for folder in folders]
    for root in roots:
        if roots.count(root) > 1:
            raise LsfdError(f"{root} is named twice; name each run once")
    names = [root.name for root in roots]
    unique = [
        name if names.count(name) == 1 else f"{root.parent.name}/{name}"
        for root, name in zip(roots, names, strict=True)
    ]
    runs = [_read(root, name) for root, name in zip(roots, unique, strict=True)]
    scales = {run.loaded.options.scale: run.name for run in runs}
    if len(scales) > 1:
        listed = ", ".join(f"{name} x{scale}" for scale, name in scales.items())
        raise LsfdError(f"the runs enlarge by different factors ({listed}); report them apart")
    return runs


def _read(root: Path, name: str) -> FinishedRun:
    folder = RunFolder(root)
    if not folder.options.is_file():
        raise LsfdError(
            f"{root} is not the folder of a run: it has no {folder.options.name}; give a folder "
            "that lsfd train wrote, such as experiments/NAME"
        )
    loaded = load_options(folder.options)
    try:
        records = read_records(folder.records, complete=True)
        losses, scores = losses_of(records), scores_of(records, "psnr")
        facts = _facts(loaded, records, _last(losses, scores))
    except (
        AttributeError,
        KeyError,
        OSError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise LsfdError(
            f"{folder.records} is damaged ({type(error).__name__}: {error}); remove the lines that "
            "lsfd train did not write"
        ) from error
    if not losses and not scores:
        raise LsfdError(
            f"{folder.records} holds no losses and no scores, so there is nothing to report; "
            f"train {root.name} first, or copy the whole folder"
        )
    return FinishedRun(name, folder, loaded, losses, scores, facts, _student(folder, loaded))


def _student(folder: RunFolder, loaded: LoadedOptions) -> Path | None:
    """Return the student's file; that of a folder that was renamed has the run's own name."""
    renamed = folder.root / f"{loaded.options.name}{folder.student.suffix}"
    candidates = (folder.student, renamed, folder.models / "net_g_latest.safetensors")
    return next((path for path in candidates if path.is_file()), None)


def _last(losses: dict[str, Points], scores: dict[str, Points]) -> int:
    return max((max(points) for points in (*losses.values(), *scores.values())), default=0)


def _facts(
    loaded: LoadedOptions, records: Sequence[Record], last: int
) -> tuple[tuple[str, str], ...]:
    """Return what tells a run from another: what was trained how, on what, where, with what."""
    options = loaded.options
    begun = next((record for record in reversed(records) if record.get("kind") == "run"), {})
    train = options.datasets.train
    batch = begun.get("batch", train.batch_size_per_gpu)
    facts: dict[str, Any] = {
        "method": " + ".join(item.type for item in options.distillers) or "no distillation",
        "student": _network(options.network_g),
        "teacher": ", ".join(Path(path).name for path in options.path.pretrain_network_t),
        "iterations": f"{last:,} of {options.train.total_iter:,}",
        "batch": f"{batch} patches of {train.gt_size} × {train.gt_size}",  # noqa: RUF001
        "data": begun.get("data"),
        "seed": options.manual_seed,
        "step": _step_time(records),
        "precision": begun.get("precision"),
        "hardware": begun.get("hardware"),
        "commit": begun.get("commit"),
        "versions": ", ".join(f"{k} {v}" for k, v in (begun.get("versions") or {}).items()),
    }
    return tuple((name, str(value)) for name, value in facts.items() if value not in (None, ""))


def _network(section: Any) -> str:
    """Return a network's type and what sets its size."""
    sizes = {name: value for name, value in section.arguments.items() if name.startswith("num_")}
    shown = ", ".join(
        f"{name} {value}"
        for name, value in sizes.items()
        if name not in ("num_in_ch", "num_out_ch")
    )
    return f"{section.type} ({shown})" if shown else str(section.type)


def _step_time(records: Sequence[Record]) -> str | None:
    seconds = [
        float(record["seconds_per_iteration"])
        for record in records
        if record.get("kind") == "train" and record.get("seconds_per_iteration")
    ]
    return f"{median(seconds):.3g} s" if seconds else None
