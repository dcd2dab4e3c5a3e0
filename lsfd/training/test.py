"""``python lsfd/test.py -opt ...``: scores of a run's student on its option file's sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lsfd.config.load import load_options
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import benchmark_sets
from lsfd.evaluation.report import BenchmarkReport
from lsfd.training.folder import RunFolder
from lsfd.training.validation import validation_sets


def test(
    option_file: Path,
    overrides: Sequence[str] = (),
    *,
    weights: Path | None = None,
    pictures: Path | None = None,
) -> BenchmarkReport:
    """Score a trained network, and bicubic beside it, on every ``datasets.val*``.

    Args:
        option_file: the run's option file.
        overrides: as for training.
        weights: the network; by default ``path.pretrain_network_g``, or else the student that
            the run finished with.
        pictures: folder for the upscaled images.

    Raises:
        LsfdError: there is no such student yet, or no set to score it on.
    """
    loaded = load_options(option_file, overrides)
    sets = validation_sets(loaded)
    if not sets:
        raise loaded.error("datasets", "there is no val set to score on; add datasets.val")
    if weights is None and loaded.options.path.pretrain_network_g is not None:
        weights = Path(loaded.options.path.pretrain_network_g)
    if weights is None:
        root = Path(loaded.options.path.experiments_root) / loaded.options.name
        weights = RunFolder(root).student
        if not weights.exists():
            raise LsfdError(
                f"{weights} is not there: train {option_file} to its end first, or give --weights"
            )
    options = {"type": loaded.options.network_g.type, **loaded.options.network_g.arguments}
    return benchmark_sets([weights], sets, loaded.options.scale, options=options, pictures=pictures)
