"""``lsfd compare``: methods x seeds at equal budget, then one table and one picture."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lsfd.locks import is_held
from lsfd.terminal import say
from lsfd.training.compared import draw_comparison, keep_comparison
from lsfd.training.jobs import train_all
from lsfd.training.planned import CACHE, PlannedRun, plan_runs
from lsfd.training.run import INTERRUPTED


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        option_file: an option file with the section ``compare``.
        overrides: changes of what all runs share.
        methods: which methods; None: all that the file lists.
        seeds: which seeds; None: those of the file.
        output: folder of what :mod:`lsfd.training.compared` writes; None: beside the runs.
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

        It is large. Runs that are not finished may be in the hands of another process, and so may
        those of other methods than these.
        """
        asked_for = any(run.seed == seed for run in self.unfinished)
        if not asked_for and not any(map(is_held, self.folder.glob(f".*_seed{seed}.lock"))):
            shutil.rmtree(self.folder / CACHE / f"seed{seed}", ignore_errors=True)

    def show(self) -> None:
        """Write and print the comparison of the runs, which are finished."""
        output = self.output or self.folder
        keep_comparison(output, self.runs)
        say(draw_comparison(output))
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
