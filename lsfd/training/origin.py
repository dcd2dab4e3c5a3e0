"""Where a run's results come from: told in its records and in the student's card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsfd import provenance
from lsfd.config.load import LoadedOptions
from lsfd.data.store import Store
from lsfd.networks.student_file import StudentCard
from lsfd.training.distributed import job
from lsfd.training.records import Record
from lsfd.training.samples import degradation_of
from lsfd.training.schedule import rate_factor
from lsfd.training.validation import Scores


@dataclass(frozen=True)
class Origin:
    """What decides a run's results.

    Attributes:
        loaded: the option file.
        store: the training images.
        precision: number format of the forward pass, such as ``bfloat16``.
        processes: how many train together.
        teachers: a digest of each teacher's weights.
    """

    loaded: LoadedOptions
    store: Store
    precision: str
    processes: int
    teachers: tuple[str, ...] = ()

    @property
    def data(self) -> str:
        """Name, size and fingerprint of the training images, and what degrades them."""
        section = self.loaded.options.datasets.train
        text = f"{section.name}: {len(self.store)} images, fingerprint "
        text += self.store.fingerprint[:16]
        degradation = degradation_of(section)
        return text if degradation is None else f"{text}, degraded: {degradation}"

    @property
    def batch(self) -> int:
        """Samples in one optimiser step, over all processes."""
        options = self.loaded.options
        each = options.datasets.train.batch_size_per_gpu * options.train.accumulate
        return each * self.processes

    @property
    def learning_rate(self) -> float:
        """The learning rate after warm-up, scaled as ``train.lr_scaling`` says."""
        train = self.loaded.options.train
        return train.optim_g.lr * rate_factor(train, self.processes)

    def record(self, *, resumed: bool) -> Record:
        """Return the line of ``metrics.jsonl`` with which a run begins or goes on."""
        return {
            "kind": "run",
            "resumed": resumed,
            "name": self.loaded.options.name,
            "seed": self.loaded.options.manual_seed,
            "total_iter": self.loaded.options.train.total_iter,
            "data": self.data,
            "fingerprint": self.store.fingerprint,
            "teachers": list(self.teachers),
            **provenance.stamp(),
            "precision": self.precision,
            "processes": self.processes,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "job": job(),
        }

    def card(self, iterations: int, scores: Scores, peer: int | None = None) -> StudentCard:
        """Return the card of the student after so many iterations, with its last scores.

        Args:
            iterations: how many were trained.
            scores: by validation set; empty where there are none.
            peer: the number of the peer, counted from 0, whose card it is instead.
        """
        options = self.loaded.options
        network = options.network_g if peer is None else options.network_p[peer]
        teachers = [Path(path).name for path in options.path.pretrain_network_t]
        return StudentCard(
            architecture={"type": network.type, **network.arguments},
            scale=options.scale,
            method=" + ".join(item.type for item in options.distillers) or "Plain",
            teacher=", ".join(teachers) or None,
            iterations=iterations,
            data=self.data,
            scores=scores,
            seed=options.manual_seed,
            **provenance.stamp(),
        )
