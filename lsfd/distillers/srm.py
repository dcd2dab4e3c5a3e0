"""SRM: knowledge distillation by sparse representation matching.

Tran, Gabbouj and Iosifidis, "Knowledge Distillation By Sparse Representation Matching" (arXiv
2103.17012). For each pair of taps, f is a pixel of the teacher's feature (Ct numbers), g that of
the student's (Cs numbers), in units of the features' scales. Three phases:

A, stage ``dictionary``: the teacher's features are written as sums of few atoms.

    k_m(f) = sigmoid(f . d_m + c)                     m = 1..M; D = (d_1 .. d_M): Ct x M; c: scalar
    z_m(f) = k_m(f) where it is among the K largest of the pixel, else 0      (all of equals stay)
    L_reconstruction = sum over taps of mean (f - sum_m z_m(f) d_m)^2         only D and c learn

B, stage ``labels``: the student, through dictionaries of its own (Ds: Cs x M, cs), learns which
atoms the teacher uses, in the whole image and at each pixel. Only the student, Ds and cs learn.

    L_global = sum over taps of BCE(mean over pixels of k(g), mean over pixels of z(f))
    L_local  = sum over taps of CE(k(g), argmax_m k_m(f))                     k(g) as the logits

C, the student's own training, from where B has left the student, without dictionaries. Beside
L1(S(x), y), the trainer's,

    L_output = mean |S(x) - sg T(x)|

S(x), T(x): B x 3 x sh x sw; sg: stop-gradient. All terms are averaged over teachers, each of which
has dictionaries of its own.

What the paper's code (github.com/viebboy/SRM) states: all of A and B but the scales, with M = mu Ct
atoms (mu in 1.5..4) and K = lambda M of them kept (lambda in 0.01..0.03), Adam from 1e-3, and how
D and c start. Its cross-entropy takes values in 0..1 for logits, so that no student gets below
ln(1 + (M-1)/e), 3.87 for M = 128, where one that knows nothing has ln M = 4.85; ``local_logits:
pre_sigmoid`` takes g . d_m + c instead. Its phase C mixes cross-entropy with the divergence of
softened class probabilities, which an image does not have.

What is our choice: phase C's L1. The scales, because sigmoids of features in 0..255 are all 0 or 1:
the teacher's is the feature's root mean square in the first batch, then fixed; the student's is the
root mean square in each batch, through which gradients flow, for the paper's students have batch
normalisation and ours do not: with a fixed scale the cross-entropy of values in 0..1 drove the
features of an EDSR to 15 to 115 times their size in 150 iterations. The stages' lengths and
learning rates, far shorter and higher than the paper's. The tree (:mod:`lsfd.sparse.tree`) in which
stage B looks up the atoms of large dictionaries: a pixel's sparse code is then made of those found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Stage, Tap, register
from lsfd.distillers.output import output_loss
from lsfd.errors import LsfdError
from lsfd.sparse.tree import AtomTree

LocalLogits = Literal["sigmoid", "pre_sigmoid"]

VALUES_AT_ONCE = 2**25
"""Similarities of pixels and atoms that are held at a time: 128 MiB of them."""

TREE_FROM = 10_000
"""Number of atoms from which on ``search: auto`` takes the tree."""


class Dictionary(nn.Module):
    """Atoms that the pixels of a feature are compared with.

    Attributes:
        atoms: D, C x M.
        offset: c, a scalar.
    """

    def __init__(self, channels: int, size: int) -> None:
        """Start as the paper's code does.

        Args:
            channels: C.
            size: M.
        """
        super().__init__()
        self.atoms = nn.Parameter(torch.empty(channels, size))
        self.offset = nn.Parameter(torch.empty(()))
        nn.init.kaiming_uniform_(self.atoms)
        nn.init.uniform_(self.offset, -1, 1)

    def pixels(self, feature: Tensor) -> Tensor:
        """Return the pixels of a feature, B x C x h x w, divided by its scale: B x hw x C."""
        feature = feature.float()
        scale = self._scale(feature)
        return feature.flatten(2).transpose(1, 2) / torch.where(scale > 0, scale, 1.0)

    def scores(self, pixels: Tensor) -> Tensor:
        """Return f . d_m + c, the similarities before the sigmoid: B x hw x M."""
        return pixels @ self.atoms + self.offset

    def _scale(self, feature: Tensor) -> Tensor:
        """Return the feature's root mean square."""
        # vector_norm's gradient at zero is zero; that of sqrt is infinite.
        return torch.linalg.vector_norm(feature) / feature.numel() ** 0.5


class SparseDictionary(Dictionary):
    """A dictionary in which a pixel is the sum of few atoms.

    Attributes:
        scale: the root mean square of the first feature that is not zero; 0 until it comes.
        kept: K, how many atoms a pixel keeps.
        tree: over the atoms, to look them up; None: all are tried.
        grown: whether the tree knows the atoms as they are.
    """

    scale: Tensor
    grown: Tensor

    def __init__(self, channels: int, size: int, kept: int, beam: int | None = None) -> None:
        """Start as the paper's code does.

        Args:
            channels: C.
            size: M.
            kept: K.
            beam: number of the tree's leaves that a pixel tries, more where they hold less than K
                atoms; None: no tree.
        """
        super().__init__(channels, size)
        self.register_buffer("scale", torch.zeros(()))
        self.kept = kept
        self.tree: AtomTree | None = None
        if beam is not None:
            self.tree = AtomTree(size, channels + 1, signed=True)
            self.beam = max(beam, math.ceil(kept / min(self.tree.leaf_sizes)))
            self.register_buffer("grown", torch.tensor(False))

    @torch.no_grad()
    def _scale(self, feature: Tensor) -> Tensor:
        size = super()._scale(feature)
        first = (self.scale == 0) & size.isfinite()
        return self.scale.copy_(torch.where(first, size, self.scale))

    def reconstruction_error(self, pixels: Tensor) -> Tensor:
        """Return the mean squared error of each image's reconstruction, B.

        Args:
            pixels: f, B x hw x C.
        """
        if self.tree is not None:
            self.grown.fill_(False)  # What comes of this error changes the atoms.
        codes = sparse_codes(self.scores(pixels), self.kept)
        return (codes @ self.atoms.T - pixels).square().mean((1, 2))

    @torch.no_grad()
    def labels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return how the images use the atoms.

        Args:
            pixels: f, B x hw x C.

        Returns:
            How much each atom is used in an image, B x M, in 0..1, and the atom of the largest
            similarity at each pixel, B x hw.
        """
        lookup = self._try_all if self.tree is None else self._look_up
        parts = pixels.split(images_at_once(pixels, self.atoms))
        usages, firsts = zip(*(lookup(part) for part in parts), strict=True)
        return torch.cat(usages), torch.cat(firsts)

    def _try_all(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(pixels)
        return sparse_codes(scores, self.kept).mean(1), scores.argmax(2)

    def _look_up(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tree = cast(AtomTree, self.tree)
        if not self.grown:
            tree.load_state_dict(AtomTree.build(self._unit_atoms(), signed=True).state_dict())
            self.grown.fill_(True)
        queries, atoms = (functional.pad(x, (0, 1)) for x in (pixels.flatten(0, 1), self.atoms.T))
        products, indices = tree.top(queries, atoms, self.beam, self.kept)
        codes = pixels.new_zeros(len(queries), len(atoms))
        codes.scatter_(1, indices, (products + self.offset).sigmoid())
        batch = pixels.shape[:2]
        return codes.view(*batch, -1).mean(1), indices[:, 0].view(batch)

    def _unit_atoms(self) -> Tensor:
        """Return unit vectors whose products with (f, 0) are in the order of f . d_m.

        A tree finds the nearest direction, but here long atoms count more than short ones. One
        more coordinate, which the pixels do not have, fills all up to the length of the longest.
        """
        atoms = self.atoms.T / self.atoms.norm(dim=0).max().clamp(min=1e-12)
        rest = (1 - atoms.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        return functional.normalize(torch.cat([atoms, rest], 1), dim=1)


def sparse_codes(scores: Tensor, kept: int) -> Tensor:
    """Return the sigmoid of each pixel's largest scores, and 0 for the others.

    The choice is made before the sigmoid, which would make large scores equal.

    Args:
        scores: B x hw x M.
        kept: K; more are kept where scores equal the K-th.

    Returns:
        B x hw x M, in 0..1.
    """
    smallest = scores.topk(kept, dim=2).values[..., -1:]
    return scores.sigmoid() * (scores >= smallest)


def global_loss(scores: Tensor, usage: Tensor) -> Tensor:
    """Return how far the student is from the teacher in what atoms it uses in an image.

    Args:
        scores: the student's, B x hw x M.
        usage: the teacher's, B x M.

    Returns:
        Binary cross-entropy of each image, B; its minimum is the entropy of the labels, not 0.
    """
    predicted = scores.sigmoid().mean(1)
    return functional.binary_cross_entropy(predicted, usage, reduction="none").mean(1)


def local_loss(scores: Tensor, first: Tensor, logits: LocalLogits) -> Tensor:
    """Return how badly the student tells the teacher's first atom at each pixel.

    Args:
        scores: the student's, B x hw x M.
        first: the teacher's atom, B x hw.
        logits: ``sigmoid``, as in the paper's code: similarities serve as logits, which keeps the
            loss above ln(1 + (M-1)/e); ``pre_sigmoid``: the scores.

    Returns:
        Cross-entropy of each image, B.
    """
    values = scores.sigmoid() if logits == "sigmoid" else scores
    losses = functional.cross_entropy(values.flatten(0, 1), first.flatten(), reduction="none")
    return losses.view_as(first).mean(1)


def images_at_once(pixels: Tensor, atoms: Tensor) -> int:
    """Return how many images may be compared with all atoms at a time.

    Args:
        pixels: B x hw x C; the similarities of an image are hw x M values.
        atoms: C x M.
    """
    return max(1, VALUES_AT_ONCE // (pixels.shape[1] * atoms.shape[1]))


def by_image(losses: Callable[..., Tensor], images: int, *inputs: Tensor) -> Tensor:
    """Return the losses of a batch's images, B x ..., computed for some images at a time.

    Where it takes several times, the backward pass computes each part again, so that what they
    hold in between is never there for the whole batch.

    Args:
        losses: from inputs to losses of images.
        images: how many at a time.
        inputs: B x ... each.
    """
    if len(inputs[0]) <= images:
        return losses(*inputs)
    parts = zip(*(each.split(images) for each in inputs), strict=True)
    return torch.cat(
        [checkpoint(losses, *p, use_reentrant=False, preserve_rng_state=False) for p in parts]
    )


@register
class SRM(Distiller):
    """The student first learns which atoms of a sparse dictionary the teacher's features use."""

    default_weights: ClassVar = {"output": 10.0}
    paper: ClassVar = "Tran et al., arXiv 2103.17012"
    year: ClassVar = 2021

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        dictionary_ratio: float = 2.0,
        dictionary_size: int | None = None,
        sparsity: float = 0.02,
        labels: Literal["global_local", "global", "local"] = "global_local",
        local_logits: LocalLogits = "sigmoid",
        dictionary_iter: int = 300,
        dictionary_lr: float = 1e-2,
        label_iter: int = 500,
        search: Literal["auto", "exact", "tree"] = "auto",
        beam: int = 16,
    ) -> None:
        """Build the dictionaries.

        Args:
            setting: taps and scale.
            weights: weight of the term ``output``, alpha / (1 - alpha) of the paper; the default is
                the best of those tried (options/weights_x4.yml).
            dictionary_ratio: mu, atoms for each channel of the teacher's feature.
            dictionary_size: M, number of atoms of every dictionary; null: by the ratio.
            sparsity: lambda, share of the atoms that a pixel keeps; at least one is kept.
            labels: what the student learns of the teacher's atoms: how much each is used in an
                image (global), which comes first at each pixel (local), or both.
            local_logits: what the cross-entropy of local labels takes for logits: similarities, as
                in the paper's code, or what they are the sigmoid of.
            dictionary_iter: iterations in which the teacher's dictionaries are learned.
            dictionary_lr: learning rate at the beginning of these.
            label_iter: iterations after these, in which the student learns the labels.
            search: how the labels are found: all atoms are tried (exact), or those in the leaves of
                a tree that a pixel leads to (tree); auto: tree from 10,000 atoms on.
            beam: number of leaves that a pixel tries.

        Raises:
            LsfdError: an option is out of its range.
        """
        super().__init__(setting, weights)
        _check_stages(dictionary_iter, dictionary_lr, label_iter)
        if not 0 < sparsity <= 1:
            raise LsfdError(f"sparsity: must be more than 0 and at most 1, not {sparsity:g}")
        if beam < 1:
            raise LsfdError(f"beam: must be at least 1, not {beam}")
        self.taps = [(i, tap) for i, taps in enumerate(setting.taps) for tap in taps]
        self.teacher_dictionaries, self.student_dictionaries = nn.ModuleList(), nn.ModuleList()
        for _, tap in self.taps:
            size = _size(tap.teacher_channels, dictionary_ratio, dictionary_size)
            kept = max(1, int(sparsity * size))
            tree = search == "tree" or (search == "auto" and size >= TREE_FROM)
            self.teacher_dictionaries.append(
                SparseDictionary(tap.teacher_channels, size, kept, beam if tree else None)
            )
            self.student_dictionaries.append(Dictionary(tap.student_channels, size))
        self.labels = labels.split("_")
        self.local_logits: LocalLogits = local_logits
        self._stages = (
            Stage("dictionary", dictionary_iter, runs_student=False, lr=dictionary_lr),
            Stage("labels", label_iter),
        )

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"output": ...}``."""
        return {"output": output_loss(batch)}

    def stages(self) -> Sequence[Stage]:
        """Return ``dictionary`` and ``labels``."""
        return self._stages

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"reconstruction": ...}``, or ``{"global": ..., "local": ...}``."""
        found = []
        # In bf16 many similarities of a pixel would be equal.
        with torch.autocast(batch.lq.device.type, enabled=False):
            for (teacher, tap), theirs, own in self._dictionaries():
                pixels = theirs.pixels(batch.teacher_features[teacher][tap.teacher])
                if stage.name == "dictionary":
                    found.append(self._reconstruction(theirs, pixels))
                else:
                    student = own.pixels(batch.student_features[tap.student])
                    found.append(self._matching(theirs.labels(pixels), own, student))
        teachers = len(self.setting.taps)
        return {
            name: torch.stack([terms[name] for terms in found]).sum() / teachers
            for name in found[0]
        }

    def _dictionaries(self) -> Iterator[tuple[tuple[int, Tap], SparseDictionary, Dictionary]]:
        """Yield each pair of taps, after its teacher's number, with both dictionaries."""
        each = zip(self.taps, self.teacher_dictionaries, self.student_dictionaries, strict=True)
        for tap, theirs, own in each:
            yield tap, cast(SparseDictionary, theirs), cast(Dictionary, own)

    @staticmethod
    def _reconstruction(dictionary: SparseDictionary, pixels: Tensor) -> dict[str, Tensor]:
        images = images_at_once(pixels, dictionary.atoms)
        return {"reconstruction": by_image(dictionary.reconstruction_error, images, pixels).mean()}

    def _matching(
        self, labels: tuple[Tensor, Tensor], dictionary: Dictionary, pixels: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of one pair of taps.

        Args:
            labels: see :meth:`SparseDictionary.labels`.
            dictionary: the student's.
            pixels: g, B x hw x Cs.
        """

        def losses(pixels: Tensor, usage: Tensor, first: Tensor) -> Tensor:
            scores = dictionary.scores(pixels)
            chosen = {
                "global": lambda: global_loss(scores, usage),
                "local": lambda: local_loss(scores, first, self.local_logits),
            }
            return torch.stack([chosen[name]() for name in self.labels], 1)

        images = images_at_once(pixels, dictionary.atoms)
        values = by_image(losses, images, pixels, *labels).mean(0)
        return dict(zip(self.labels, values.unbind(), strict=True))


def _size(channels: int, ratio: float, size: int | None) -> int:
    """Return M, for a teacher's feature of so many channels."""
    if size is None:
        size = int(ratio * channels)
        if size < 2:
            raise LsfdError(
                f"dictionary_ratio: {ratio:g} times {channels} channels are less than 2 atoms"
            )
    if size < 2:
        raise LsfdError(f"dictionary_size: must be at least 2, not {size}")
    return size


def _check_stages(dictionary_iter: int, dictionary_lr: float, label_iter: int) -> None:
    for name, count in (("dictionary_iter", dictionary_iter), ("label_iter", label_iter)):
        if count < 0:
            raise LsfdError(f"{name}: must be at least 0, not {count}")
    if dictionary_iter == 0 < label_iter:
        raise LsfdError(
            "dictionary_iter: 0 leaves the labels to random atoms; raise it, or set label_iter "
            "to 0 as well"
        )
    if dictionary_lr <= 0:
        raise LsfdError(f"dictionary_lr: must be more than 0, not {dictionary_lr:g}")
