"""Students in a row: each one learns from the one before it.

``train.generations: 3`` trains three students of one architecture. The first learns from
``network_t``, each further one, from another random start, from the finished student before it:
sequential FEED (Park and Kwak, arXiv 1909.10754) or, with output distillation, born-again networks
(Furlanello et al., arXiv 1805.04770). Each takes ``total_iter`` iterations in a folder of its own;
the last one has the run's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from lsfd.config.load import LoadedOptions, load_options
from lsfd.training.folder import RunFolder


def generations(option_file: Path, overrides: Sequence[str]) -> Iterator[LoadedOptions]:
    """Yield the options of each student to train, one after the other.

    Args:
        option_file: with ``train.generations``; 1, the default, yields this file's own options.
        overrides: as for training.
    """
    loaded = load_options(option_file, overrides)
    folder, count = RunFolder.of(loaded), loaded.options.train.generations
    previous: Path | None = None
    for number in range(1, count + 1):
        changes = [*overrides]
        if number < count:
            changes.append(f"name={folder.generation(number).root.name}")
        if previous is not None:
            network = json.dumps(loaded.raw["network_g"])
            changes += [
                f"network_t={network}",
                f"path.pretrain_network_t={json.dumps(str(previous))}",
                f"manual_seed={loaded.options.manual_seed + number - 1}",
                "path.teacher_cache=null",  # No other run has this teacher.
            ]
        current = load_options(option_file, changes)
        yield current
        previous = RunFolder.of(current).student
