"""FReTAL: a student moves to degraded images without the images that it was trained on.

Kim, Tariq and Woo, "FReTAL: Generalizing Deepfake Detection using Knowledge Distillation and
Representation Learning" (CVPR Workshops 2021, arXiv 2105.13617). The teacher is the source model,
frozen; the student begins as a copy of it (``path.pretrain_network_g``) and sees images of the new
kind only. Beside L1(S(x), y), the trainer's,

    L_output  = mean |S(x) - sg T(x)|
    L_feature = sum over taps and cells c of mean ((m_c - M_c) / sigma)^2

S(x), T(x): B x 3 x sh x sw; sg: stop-gradient. f(F) of a feature F: B x C x h x w is the mean of
MaxPool4(F) over channels and positions, a number for each patch (``channels: each``: over positions
alone, C numbers). A patch belongs to one of 2K cells: K bins by how well the teacher does on it,
PSNR(T(x), y), times two classes, flat and textured. m_c: the mean of the student's f over the
batch's patches in c; M_c, the store: that of the teacher's f over many patches in c, found once and
then fixed; sigma: the standard deviation of the teacher's f over all patches. Cells without patches
in the batch or in the store do not count. Averaged over teachers, each of which has a store.

Two stages look at the new images before anything is learned: ``quantiles`` finds the bins' edges,
which hold equal shares of the patches, and the median of the gradient energy, above which a patch
is textured; ``store`` finds M and sigma.

What the paper's code (github.com/alsgkals2/FReTAL) states, for a classifier of two classes: 2 x 5
cells, by the probability of the true class in steps of 0.1 from 0.5, times the class; features
after MaxPool4, averaged over channels, then over the patches of a cell, in a store that is made
once; the sum of squared differences over cells that neither side lacks; L = CE + (0.5 KL + 0.5 CE)
+ that sum, from which the default weight of L_output follows, 1 to 3. Its features are left with
one position; its cells of a batch are by the student's probabilities.

What is our choice, for images have neither classes nor probabilities: the bins and classes; cells
of a batch by the teacher's PSNR, for the student's soon leaves all the bins; the mean over
positions, which mean nothing in random patches; several taps; sigma; L1 for KL; no patches that are
pasted together, which the paper's code does in a fifth of the batches. So "FReTAL-style".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Stage, Tap, register
from lsfd.distillers.output import output_loss
from lsfd.errors import LsfdError

POOL = 4
MEMORY = 4096
"""So many patches at most decide about bins and classes."""
SMALLEST_ERROR = 1e-10
SMALLEST_VARIANCE = 1e-12

Channels = Literal["mean", "each"]


class PatchCells(nn.Module):
    """Which cell a patch belongs to: a bin by one teacher's PSNR, times flat or textured.

    All that decides is in buffers of fixed size, so that a resume goes on from the same.
    """

    psnr: Tensor
    energy: Tensor
    seen: Tensor
    edges: Tensor
    middle: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("psnr", torch.zeros(MEMORY))
        self.register_buffer("energy", torch.zeros(MEMORY))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("edges", torch.zeros(bins - 1))
        self.register_buffer("middle", torch.zeros(()))

    def __len__(self) -> int:
        return 2 * self.bins

    def look(self, image: Tensor, gt: Tensor) -> None:
        """Note patches, as long as there is room, and move the limits to the quantiles of all.

        Args:
            image: the teacher's, B x 3 x sh x sw.
            gt: ground truth of the same size.
        """
        begin = int(self.seen)
        end = min(begin + len(gt), MEMORY)
        self.psnr[begin:end] = psnr(image, gt)[: end - begin]
        self.energy[begin:end] = gradient_energy(gt)[: end - begin]
        self.seen.fill_(end)
        shares = torch.linspace(0, 1, self.bins + 1, device=gt.device)[1:-1]
        self.edges.copy_(self.psnr[:end].quantile(shares))
        self.middle.copy_(self.energy[:end].quantile(0.5))

    def forward(self, image: Tensor, gt: Tensor) -> Tensor:
        """Return which patch is in which cell: 2K x B of ones and zeros, float32."""
        bins = torch.bucketize(psnr(image, gt), self.edges)
        textured = gradient_energy(gt) > self.middle
        cells = 2 * bins + textured
        return functional.one_hot(cells, len(self)).T.float()


class FeatureStore(nn.Module):
    """What one teacher's features are like in each cell, at one tap.

    Values of a patch are V numbers; the buffers hold sums over patches, of V numbers each.
    """

    sums: Tensor
    square_sums: Tensor
    counts: Tensor

    def __init__(self, cells: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(cells, width))
        self.register_buffer("square_sums", torch.zeros(width))
        self.register_buffer("counts", torch.zeros(cells))

    def add(self, values: Tensor, member: Tensor) -> None:
        """Add patches.

        Args:
            values: f, B x V.
            member: 2K x B, see :class:`PatchCells`.
        """
        self.sums += _cell_sums(member, values)
        self.square_sums += values.square().sum(0)
        self.counts += member.sum(1)

    def forward(self, values: Tensor, member: Tensor) -> Tensor:
        """Return how far a batch's cells are from the store's: a scalar."""
        counts = member.sum(1)
        means = _cell_sums(member, values) / counts.clamp(min=1)[:, None]
        stored = self.sums / self.counts.clamp(min=1)[:, None]
        distances = (means - stored).square().mean(1) / self._variance()
        both = (counts > 0) & (self.counts > 0)
        return torch.where(both, distances, 0).sum()

    def _variance(self) -> Tensor:
        """Return sigma^2, averaged over the V numbers."""
        total = self.counts.sum().clamp(min=1)
        mean = self.sums.sum(0) / total
        return (self.square_sums / total - mean.square()).mean().clamp(min=SMALLEST_VARIANCE)


def _cell_sums(member: Tensor, values: Tensor) -> Tensor:
    """Return the sums of B x V values over the patches of each cell: 2K x V.

    Not as a matrix product, which autocast would do in bf16.
    """
    return (member[:, :, None] * values).sum(1)


@register
class FReTAL(Distiller):
    """Adapts a student to degraded images by its own outputs and feature statistics."""

    default_weights: ClassVar = {"output": 1 / 3, "feature": 5e-5}
    paper: ClassVar = "Kim et al., arXiv 2105.13617"
    year: ClassVar = 2021

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        bins: int = 5,
        channels: Channels = "mean",
        quantile_iter: int = 25,
        store_iter: int = 75,
    ) -> None:
        """Make an empty store.

        Args:
            setting: taps and scale.
            weights: weights of the terms ``output`` and ``feature``.
            bins: K, into which patches are divided by the teacher's PSNR.
            channels: whether a patch's feature is averaged over its channels, as in the paper, or
                keeps a number for each; then student and teacher need equal widths.
            quantile_iter: iterations that look for the limits of bins and classes; 4,096 patches
                are the most that they take in.
            store_iter: iterations after these that fill the store. 0 for both: no store, so that
                the term ``feature`` is 0.

        Raises:
            LsfdError: an option is out of its range, or widths differ where they must not.
        """
        super().__init__(setting, weights)
        _check(bins, quantile_iter, store_iter)
        self.taps = [(i, tap) for i, taps in enumerate(setting.taps) for tap in taps]
        self.channels = channels
        self.cells = nn.ModuleList(PatchCells(bins) for _ in setting.taps)
        widths = [1 if channels == "mean" else _common_width(tap) for _, tap in self.taps]
        self.stores = nn.ModuleList(FeatureStore(2 * bins, width) for width in widths)
        self._stages = (
            Stage("quantiles", quantile_iter, runs_student=False, learns=False),
            Stage("store", store_iter, runs_student=False, learns=False),
        )

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"output": ..., "feature": ...}``."""
        members = self._members(batch)
        losses = [
            store(self._values(batch.student_features[tap.student]), members[teacher])
            for (teacher, tap), store in zip(self.taps, self.stores, strict=True)
        ]
        return {
            "output": output_loss(batch),
            "feature": torch.stack(losses).sum() / len(members),
        }

    def stages(self) -> Sequence[Stage]:
        """Return ``quantiles`` and ``store``."""
        return self._stages

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        """Look at the batch; nothing is minimised."""
        if stage.name == "quantiles":
            for cells, image in zip(self.cells, batch.teachers, strict=True):
                cast(PatchCells, cells).look(image, batch.gt)
            return {}
        members = self._members(batch)
        for (teacher, tap), store in zip(self.taps, self.stores, strict=True):
            values = self._values(batch.teacher_features[teacher][tap.teacher])
            cast(FeatureStore, store).add(values, members[teacher])
        return {}

    def _members(self, batch: DistillationBatch) -> list[Tensor]:
        """Return for each teacher which patch of a batch is in which cell."""
        return [
            cells(image, batch.gt) for cells, image in zip(self.cells, batch.teachers, strict=True)
        ]

    def _values(self, feature: Tensor) -> Tensor:
        """Return f of a feature: B x V, float32."""
        pooled = functional.max_pool2d(feature.float(), POOL, ceil_mode=True)
        return pooled.mean((1, 2, 3))[:, None] if self.channels == "mean" else pooled.mean((2, 3))


def psnr(image: Tensor, gt: Tensor) -> Tensor:
    """Return the PSNR of each image of B x 3 x H x W in 0..1: B."""
    errors = (image.float() - gt.float()).square().mean((1, 2, 3))
    return -10 * errors.clamp(min=SMALLEST_ERROR).log10()


def gradient_energy(images: Tensor) -> Tensor:
    """Return the mean squared differences of neighbours, down and right, of each image: B."""
    images = images.float()
    down, right = images.diff(dim=2), images.diff(dim=3)
    return down.square().mean((1, 2, 3)) + right.square().mean((1, 2, 3))


def _common_width(tap: Tap) -> int:
    if tap.student_channels != tap.teacher_channels:
        raise LsfdError(
            f"channels: each needs features of equal width, but tap '{tap.student}' of the student "
            f"has {tap.student_channels} channels and '{tap.teacher}' of the teacher "
            f"{tap.teacher_channels}"
        )
    return tap.teacher_channels


def _check(bins: int, quantile_iter: int, store_iter: int) -> None:
    if bins < 1:
        raise LsfdError(f"bins: must be at least 1, not {bins}")
    for name, count in (("quantile_iter", quantile_iter), ("store_iter", store_iter)):
        if count < 0:
            raise LsfdError(f"{name}: must be at least 0, not {count}")
    if quantile_iter == 0 < store_iter:
        raise LsfdError(
            "quantile_iter: 0 leaves the store without limits of its cells; raise it, or set "
            "store_iter to 0 as well"
        )
