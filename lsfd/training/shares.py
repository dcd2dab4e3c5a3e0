"""One comparison by several processes: each trains a share of the runs, then one makes the table.

The processes of a job array share nothing but the folder of the runs. What a share is follows from
the option file alone: a piece of the list of runs, which goes seed by seed, so that most runs of a
share learn from what the teachers gave to the ones before. Whoever finds a run in the hands of
another process leaves it alone, so that it does no harm to start a share twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lsfd.atomic import write_text
from lsfd.errors import LsfdError
from lsfd.shard import Shard
from lsfd.terminal import say
from lsfd.training.collected import collect
from lsfd.training.compare import Comparison
from lsfd.training.planned import PlannedRun

COUNT = "shards.txt"
"""Says how many shares there are, so that a merge can name the one that has not trained a run."""


def train_share(comparison: Comparison, shard: Shard, jobs: int = 1) -> int:
    """Train a share of the runs; say how many of all are finished, and how to get the table.

    Args:
        comparison: what is compared, the same for all shares.
        shard: which share.
        jobs: how many runs train at once.

    Returns:
        Exit status: 0, or 128 + the signal that stopped it.

    Raises:
        LsfdError: the options are wrong, runs failed, or another process trains them.
    """
    write_text(comparison.folder / COUNT, f"{shard.count}\n")
    status = comparison.train(shard.block(comparison.runs), jobs)
    if status == 0:
        total = len(comparison.runs)
        finished = total - len(comparison.unfinished)
        say(f"shard {shard} is trained; {finished} of {total} runs are finished")
        until = "" if finished == total else "when all are, "
        say(f"{until}make the table with: {comparison.command('--merge')}")
    return status


def merge(comparison: Comparison, others: Sequence[Path] = ()) -> None:
    """Write and print the comparison of runs that are all finished; nothing is trained.

    Args:
        comparison: what is compared.
        others: folders of the same comparison on other hosts' disks; finished runs that are
            missing here are copied from there.

    Raises:
        LsfdError: runs are missing, or were trained with other options.
    """
    collect(comparison.runs, others)
    unfinished = comparison.unfinished
    if unfinished:
        names = ", ".join(run.folder.root.name for run in unfinished)
        raise LsfdError(
            f"{len(unfinished)} of {len(comparison.runs)} runs are not finished: {names}; "
            f"train them with {_commands(comparison, unfinished)}"
        )
    for run in comparison.runs:
        run.write_options()  # Refuses runs of other options.
    for seed in {run.seed for run in comparison.runs}:
        comparison.forget_teacher_results(seed)
    comparison.show()


def _commands(comparison: Comparison, unfinished: Sequence[PlannedRun]) -> str:
    """Return the command that trains what is missing: those of the shares that it belongs to."""
    try:
        count = int((comparison.folder / COUNT).read_text(encoding="ascii"))
        shards = [Shard(number, count) for number in range(1, count + 1)]
    except (OSError, ValueError, LsfdError):  # Nobody has begun, or not in shares.
        return comparison.command()
    missing = {run.folder.root for run in unfinished}
    lacking = [
        str(shard)
        for shard in shards
        if any(run.folder.root in missing for run in shard.block(comparison.runs))
    ]
    first, *more = lacking
    also = f" (and {', '.join(more)})" if more else ""
    return comparison.command("--shard", first) + also
