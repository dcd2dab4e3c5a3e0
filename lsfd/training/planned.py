"""The runs of a comparison: every method with every seed, from one option file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsfd.atomic import write_text
from lsfd.config.changes import first_change
from lsfd.config.inheritance import merged, read_options
from lsfd.config.load import LoadedOptions, load_options, options_from_dict
from lsfd.distillers import DISTILLERS
from lsfd.errors import LsfdError, nearest
from lsfd.training.folder import RunFolder
from lsfd.training.records import read_records
from lsfd.training.resume import other_options

CACHE = "teacher_cache"
TEACHERS = "pretrain_network_t"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        method: name in the table.
        seed: its ``manual_seed``.
        loaded: its options.
    """

    method: str
    seed: int
    loaded: LoadedOptions

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        options = self.loaded.options
        return RunFolder(Path(options.path.experiments_root) / options.name)

    @property
    def option_file(self) -> Path:
        """The run's own option file, beside its folder."""
        root = self.folder.root
        return root.with_name(f"{root.name}.yml")

    @property
    def output(self) -> Path:
        """What the run prints."""
        return self.option_file.with_suffix(".log")

    @property
    def lock(self) -> Path:
        """The file that the process which has this run trained holds locked."""
        root = self.folder.root
        return root.with_name(f".{root.name}.lock")

    @property
    def iterations(self) -> int:
        """How many its training has: as many for each student of a row."""
        train = self.loaded.options.train
        return train.generations * train.total_iter

    def is_finished(self) -> bool:
        """Return whether the finished student is there."""
        return self.folder.student.exists()

    def iterations_done(self) -> int:
        """Return how far the training has come, as its records tell."""
        if self.is_finished():
            return self.iterations
        earlier = range(1, self.loaded.options.train.generations)
        return sum(
            max((record.get("iteration", 0) for record in read_records(folder.records)), default=0)
            for folder in [*map(self.folder.generation, earlier), self.folder]
        )

    def write_options(self) -> None:
        """Write the run's option file, unless a run with other options has begun there.

        Raises:
            LsfdError: one has; its results would be mixed with those of these options.
        """
        if self.option_file.exists() and self.folder.root.exists():
            change = first_change(load_options(self.option_file).options, self.loaded.options)
            if change is not None:
                advice = "choose another name in the option file, or remove that folder"
                raise other_options(self.folder, change, self.option_file, advice)
        write_text(self.option_file, self.loaded.to_yaml())


def plan_runs(
    option_file: Path,
    overrides: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    *,
    keep_teacher_results: bool = True,
) -> list[PlannedRun]:
    """Return all runs, seed by seed, each checked as an option file is.

    Args:
        option_file: an option file with the section ``compare``.
        overrides: changes of what all runs share, such as ``train.total_iter=2000``.
        methods: names in ``compare.methods``, or of any method, which then has its defaults; None:
            all of ``compare.methods``.
        seeds: None: ``compare.seeds``.
        keep_teacher_results: whether runs of one seed share what their teachers gave, in a folder
            beside them, where the file names no ``path.teacher_cache``.

    Raises:
        LsfdError: the file has no such section, a method is unknown, or a run's options are wrong.
    """
    shared = load_options(option_file, overrides)
    section = shared.options.compare
    if section is None:
        raise LsfdError(
            f"{shared.source}: has no section 'compare'; see options/compare_x4.yml for an example"
        )
    folder = Path(option_file).parent
    changes = {name: _changes(shared, folder, name) for name in methods or section.methods}
    root = Path(shared.options.path.experiments_root) / shared.options.name
    runs = []
    for seed in seeds or section.seeds:
        cache = root / CACHE / f"seed{seed}" if keep_teacher_results else None
        for name, change in changes.items():
            data = _run_options(shared, change, root, name, seed, cache)
            source = f"{shared.source}, compare.methods.{name}"
            runs.append(PlannedRun(name, seed, options_from_dict(data, source)))
    return runs


def _changes(shared: LoadedOptions, folder: Path, name: str) -> Mapping[str, Any]:
    """Return what a method changes of the options that all share."""
    assert shared.options.compare is not None
    listed = shared.options.compare.methods
    if name in listed:
        change = listed[name]
        return change if isinstance(change, Mapping) else _method_of(folder / change)
    if name in DISTILLERS:
        return {"distillers": [{"type": name}]}
    hint = nearest(name, [*listed, *DISTILLERS])
    raise shared.error("compare.methods", f"'{name}' is not listed and no method{hint}")


def _method_of(file: Path) -> dict[str, Any]:
    """Return the distillers, teachers and peers of a method's own option file."""
    data, _ = read_options(file)
    method: dict[str, Any] = {}
    for key in ("network_t", "network_p", "distillers"):
        if key in data:
            method[key] = data[key]
    paths = data.get("path")
    if isinstance(paths, Mapping) and TEACHERS in paths:
        method["path"] = {TEACHERS: paths[TEACHERS]}
    return method


def _run_options(
    shared: LoadedOptions,
    change: Mapping[str, Any],
    root: Path,
    method: str,
    seed: int,
    cache: Path | None,
) -> dict[str, Any]:
    data = merged(copy.deepcopy(shared.raw), change)
    del data["compare"]
    data |= {"name": f"{method}_seed{seed}", "manual_seed": seed}
    paths = {**(data.get("path") or {}), "experiments_root": str(root)}
    if cache is not None:
        paths.setdefault("teacher_cache", str(cache))
    return {**data, "path": paths}
