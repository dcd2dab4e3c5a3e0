"""What frozen teachers make of a run's batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lsfd.config.options import Options
from lsfd.errors import LsfdError
from lsfd.training.distributed import Processes
from lsfd.training.finite import faulty
from lsfd.training.teacher_cache import Result, TeacherCache


class Lessons:
    """Outputs and features of teachers, computed or kept from another run.

    Attributes:
        caches: one for each teacher, or none.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        caches: Sequence[TeacherCache],
        options: Options,
        processes: Processes,
        dtype: torch.dtype | None,
    ) -> None:
        """Make them.

        Args:
            teachers: each gives its output and its features.
            caches: one for each of them, or none.
            options: of the run.
            processes: this process's place in distributed training.
            dtype: the autocast type; None: plain float32.
        """
        self._teachers, self.caches, self._dtype = teachers, caches, dtype
        self._files = options.path.pretrain_network_t
        self._parts = options.train.accumulate
        self._processes = processes

    @torch.no_grad()
    def of(self, lq: Tensor, iteration: int, part: int) -> list[Result]:
        """Return every teacher's output and features.

        Args:
            lq: a part of the iteration's batch, B x 3 x h x w, 0..1.
            iteration: counted from 1.
            part: which part, counted from 0.
        """
        with torch.autocast(lq.device.type, self._dtype, enabled=self._dtype is not None):
            if not self.caches:
                return [teacher(lq) for teacher in self._teachers]
            # The number of these samples in the order in which StepSampler deals them out.
            step = (iteration - 1) * self._processes.world_size + self._processes.rank
            number = step * self._parts + part
            both = zip(self.caches, self._teachers, strict=True)
            return [cache(lq, number, teacher) for cache, teacher in both]

    def check(self, lq: Tensor, iteration: int, part: int) -> None:
        """Look whether the results are finite; arguments as in :meth:`of`.

        Raises:
            LsfdError: naming a teacher whose results are not.
        """
        for number, (output, features) in enumerate(self.of(lq, iteration, part)):
            named = {f"the feature at '{tap}'": value for tap, value in features.items()}
            wrong = faulty({**named, "the output": output})
            if wrong:
                raise LsfdError(
                    f"iteration {iteration}: {wrong[0]} of the teacher {self._files[number]} holds "
                    "NaN or infinity for a finite input: its weights are damaged, or its values do "
                    "not fit the number format; give another path.pretrain_network_t, or use "
                    "train.precision: fp32"
                )
