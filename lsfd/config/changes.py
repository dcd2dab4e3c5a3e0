"""What may differ between the options that a run began with and those that it goes on with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lsfd.config.options import Options

FREE = {
    "name": "the folder may have been renamed",
    "model_type": "there is one",
    "num_gpu": "a device rounds in its own way, but learns the same",
    "dist_params": "how processes find each other",
    "logger": "what is said and kept",
    "val.val_freq": "when scores are taken",
    "val.save_img": "what is kept of them",
    "val.save_maps": "the same",
    "datasets.train.name": "a label",
    "datasets.train.type": "synonyms",
    "datasets.train.cache_dir": "where copies of the images lie",
    "datasets.train.num_worker_per_gpu": "samples do not depend on who loads them",
    "path.experiments_root": "where runs lie",
    "path.teacher_cache": "kept results are those of the teachers, to the bit",
    "path.resume_state": "where a run began that goes on from its own checkpoints now",
    "train.channels_last": "the order in which sums are rounded",
    "train.compile": "the same",
    "train.max_skipped": "when to give up",
}
"""Options that decide nothing of what a student learns, each with the reason.

Of paths the last part counts alone: files may be moved. What is in them is compared where it is at
hand, by the fingerprint of images and the digest of weights.
"""

TOTAL_ITER = "train.total_iter"


@dataclass(frozen=True)
class Change:
    """An option that differs.

    Attributes:
        name: such as ``train.optim_g.lr``.
        before: its value; None: there was none.
        now: likewise.
    """

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        before, now = ("not given" if x is None else x for x in (self.before, self.now))
        return f"{self.name} was {before} and is {now} now"


def first_change(
    before: Options, now: Options, free: Collection[str] = (), *, scores: bool = True
) -> Change | None:
    """Return the first option that decides a result and differs; None: there is none.

    Defaults count as if they were written out.

    Args:
        before: the options that the run began with.
        now: those that it would go on with.
        free: further options that may differ.
        scores: whether scores are results, too, or only what is learned.
    """
    old, new = (dict(_decisive(options, scores)) for options in (before, now))
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in free and old.get(name) != new.get(name):
            return Change(name, old.get(name), new.get(name))
    return None


def _decisive(options: Options, scores: bool) -> Iterator[tuple[str, Any]]:
    """Yield the options that decide a result as (name, value)."""
    data = options.model_dump(mode="json")
    if not scores:
        del data["val"]
        data["datasets"] = {"train": data["datasets"]["train"]}
    yield from _leaves(data)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if name in FREE or value is None:
        return
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        yield name, PurePath(value).name if isinstance(value, str) and "/" in value else value
        return
    for key, item in items:
        yield from _leaves(item, f"{name}.{key}" if name else str(key))
