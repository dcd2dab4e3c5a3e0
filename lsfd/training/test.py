"""``python lsfd/test.py -opt ...``: scores of a network on its option file's sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lsfd.config.load import LoadedOptions, LoadedTestOptions, load_options_to_test
from lsfd.config.testing import TestOptions
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import benchmark_sets
from lsfd.evaluation.report import BenchmarkReport
from lsfd.networks.ready import find_weights
from lsfd.training.folder import RunFolder
from lsfd.training.validation import validation_sets

RESULTS = Path("results")
"""Where BasicSR's users find the images of a test with ``val.save_img``."""


def test(
    option_file: Path,
    overrides: Sequence[str] = (),
    *,
    weights: Path | None = None,
    pictures: Path | None = None,
) -> BenchmarkReport:
    """Score a trained network, and bicubic beside it, on every set of an option file.

    Args:
        option_file: of a run, whose finished student is scored; or of a test, which names its
            network's weights in ``path.pretrain_network_g``.
        overrides: as for training.
        weights: the network, instead of that one.
        pictures: folder for the upscaled images; by default, with ``val.save_img`` in the file of
            a test, ``results/<name>/visualization``.

    Raises:
        LsfdError: there is no such network, or no set to score it on.
    """
    loaded = load_options_to_test(option_file, overrides)
    options = loaded.options
    sets = validation_sets(loaded)
    if not sets:
        raise loaded.error("datasets", "there is no set to score on; add datasets.val")
    suffix = None
    if isinstance(options, TestOptions):
        suffix = options.val.suffix
        if pictures is None and options.val.save_img:
            pictures = RESULTS / options.name / "visualization"
    return benchmark_sets(
        [weights or _weights(loaded)],
        sets,
        options.scale,
        options={"type": options.network_g.type, **options.network_g.arguments},
        key=None if weights else options.path.param_key_g,
        device="cpu" if options.num_gpu == 0 else "auto",
        pictures=pictures,
        suffix=f"_{suffix}" if suffix else "",
    )


def _weights(loaded: LoadedOptions | LoadedTestOptions) -> Path:
    """Return the file of the network that an option file is about."""
    options = loaded.options
    if not isinstance(options, TestOptions):
        student = RunFolder(Path(options.path.experiments_root) / options.name).student
        if not student.exists():
            raise LsfdError(
                f"{student} is not there: train {loaded.source} to its end first, or give --weights"
            )
        return student
    if options.path.pretrain_network_g is None:
        raise loaded.error(
            "path.pretrain_network_g", "is missing: name the network's weights, or give --weights"
        )
    return find_weights(options.path.pretrain_network_g)
