"""Random aligned patches from a packed store, as a function of the sample's number.

A training run never has to save where its data loader stands: what sample ``n`` is depends on
the seed and on ``n`` alone, so that a resumed run, any number of workers and any division of a
batch between processes see the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from lsfd.data.store import Store
from lsfd.errors import LsfdError


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Random patches with augmentation, numbered 0, 1, 2 ... without end.

    Images are picked with probability proportional to their area, so that all patches of the
    set are about equally likely; positions are uniform on the LR grid. Stateless: it must be
    used with a sampler that gives the numbers, such as ``StepSampler``.
    """

    def __init__(
        self, store: Store, gt_size: int, use_hflip: bool, use_rot: bool, seed: int
    ) -> None:
        """Prepare patches from ``store``.

        Args:
            store: the packed images.
            gt_size: side of the HR patch in pixels, a multiple of the store's scale.
            use_hflip: flip left-right with probability 1/2.
            use_rot: flip top-bottom with probability 1/2 and transpose with probability 1/2
                (BasicSR's meaning; together with ``use_hflip`` all 8 symmetries of the square).
            seed: 0 or greater; another seed gives another endless series.

        Raises:
            LsfdError: ``gt_size`` is not a positive multiple of the scale, or an image is
                smaller than ``gt_size``.
        """
        if gt_size < 1 or gt_size % store.scale:
            raise LsfdError(
                f"datasets.train.gt_size is {gt_size}, which is not a positive multiple of the "
                f"scale {store.scale}"
            )
        for name, (height, width) in zip(store.names, store.shapes, strict=True):
            if min(height, width) < gt_size:
                raise LsfdError(
                    f"the image {name} is {width}x{height} pixels, smaller than a patch of "
                    f"{gt_size}x{gt_size}; lower datasets.train.gt_size or set "
                    "datasets.train.skip_small: true"
                )
        self._store = store
        self._lq_size = gt_size // store.scale
        self._use_hflip = use_hflip
        self._use_rot = use_rot
        self._seed = seed
        areas = [height * width for height, width in store.shapes]
        # As float64, which is what is looked up: NumPy would convert all of it for each sample.
        self._area_until = np.cumsum(areas, dtype=np.float64)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Return sample ``number``.

        Returns:
            ``lq``: uint8, 3 x gt_size/scale x gt_size/scale; ``gt``: uint8, 3 x gt_size x
            gt_size; both RGB, the channels of a pixel side by side in memory (channels-last).
        """
        # Philox is a counter-based generator: each key (seed, number) is a stream of its own,
        # made without any warming up.
        generator = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        area, down, right, *coins = generator.random(6)
        flips = [coin < 0.5 for coin in coins]
        scale, size = self._store.scale, self._lq_size
        image = int(np.searchsorted(self._area_until, area * self._area_until[-1], side="right"))
        lq, gt = self._store.lq(image), self._store.gt(image)
        top = int(down * (lq.shape[0] - size + 1))
        left = int(right * (lq.shape[1] - size + 1))
        lq = lq[top : top + size, left : left + size]
        gt = gt[
            top * scale : (top + size) * scale,
            left * scale : (left + size) * scale,
        ]
        return {"lq": self._augment(lq, flips), "gt": self._augment(gt, flips)}

    def _augment(self, patch: NDArray[np.uint8], flips: list[bool]) -> torch.Tensor:
        """Flip and transpose a view, H x W x 3, and copy it into a tensor, 3 x H x W."""
        left_right, top_bottom = self._use_hflip and flips[0], self._use_rot and flips[1]
        # OpenCV, for NumPy moves the three bytes of a pixel one by one: 30 times as slow.
        if left_right or top_bottom:
            patch = np.asarray(cv2.flip(patch, _FLIP_CODES[left_right, top_bottom]), np.uint8)
        if self._use_rot and flips[2]:
            patch = np.asarray(cv2.transpose(patch), np.uint8)
        return torch.from_numpy(np.ascontiguousarray(patch)).permute(2, 0, 1)


_FLIP_CODES = {(True, False): 1, (False, True): 0, (True, True): -1}
"""OpenCV's names of the axes."""


def batch_of(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return samples as one batch, for ``DataLoader(collate_fn=...)``.

    Args:
        samples: ``lq`` and ``gt``, each 3 x H x W, channels-last in memory.

    Returns:
        ``lq`` and ``gt``, B x 3 x H x W; channels-last, too, so that nothing is ever rearranged.
    """
    return {
        name: torch.stack([each[name].permute(1, 2, 0) for each in samples]).permute(0, 3, 1, 2)
        for name in samples[0]
    }


class StepSampler(Sampler[list[int]]):
    """The sample numbers of each training step, for ``DataLoader(batch_sampler=...)``.

    Step ``t`` of a run with ``world_size`` processes and ``batch_size`` samples in each uses the
    numbers from ``t * batch_size * world_size``, a run of ``batch_size`` for each rank: the same
    samples as one process with a batch ``world_size`` times as large.
    """

    def __init__(
        self,
        batch_size: int,
        start_step: int,
        total_steps: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Give batches for the steps from ``start_step`` to ``total_steps - 1``."""
        self._batch_size = batch_size
        self._steps = range(start_step, total_steps)
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            start = (step * self._world_size + self._rank) * self._batch_size
            yield list(range(start, start + self._batch_size))

    def __len__(self) -> int:
        return len(self._steps)
