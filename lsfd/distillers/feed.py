"""FEED-style: each teacher's last feature, through a translator of its own.

FEED (feature-level ensemble for knowledge distillation): Park and Kwak, arXiv 1909.10754. It
extends factor transfer (FT): Kim et al., arXiv 1802.04977.

For teacher n = 1..N, with the features at the last pair of taps, F_S (B x Cs x h x w) and F_T^n
(B x Ct x h x w, no gradient):

    f_S = Q_n(F_S)      translator: 3 convolutions 3 x 3, Cs -> Cs -> C -> C, LeakyReLU 0.1
    f_T = sg E_n(F_T)   the teacher's factor, B x C x h x w
    L   = mean_n scaled |v(f_S) - v(f_T)|,    v: flattened to D = Chw, divided by its L2 norm

E_n is the identity (C = Ct), or FT's paraphraser: 3 convolutions Ct -> Ct -> C -> C with C = k Ct,
then 3 transposed ones back. It learns first, in the stage "paraphraser", from
mean |decoded(E_n(F_T)) - F_T|, and is frozen afterwards.

What FT's released code states (github.com/Jangho-Kim/Factor-Transfer-pytorch): both networks, k =
1/2, the two losses, v, the mean over D, and 500 as the weight. What FEED's abstract states: several
teachers, each with a non-linear transformation of its own, at the level of features. FEED's
formulae were not available to us, hence "-style". The published text of 2019 does not name the
paraphraser in its abstract, the submission of 2018 calls itself an extension of FT; so both are
offered, and the translators are FT's.

What is our choice: the mean over teachers; no LeakyReLU behind the last layer where the target
has either sign (the decoder, and the translator without paraphraser), because SR features have no
ReLU there; the scaling. The difference of two unit vectors has a mean that shrinks like 1 / sqrt(D)
with patches and widths; ``scaling: sqrt`` multiplies the mean by sqrt(D), so that it is 0..2
whatever D is; ``mean`` is FT's, ``sum`` the sum over D.

Sequential FEED, where each student teaches the next one, is a matter of runs, not of this loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Stage, register
from lsfd.errors import LsfdError

Scaling = Literal["mean", "sum", "sqrt"]

SLOPE = 0.1
"""Of LeakyReLU below zero, as in factor transfer."""


def factor_distance(student: Tensor, teacher: Tensor, scaling: Scaling) -> Tensor:
    """Return how far apart two factors are, whatever their lengths.

    Args:
        student: B x C x h x w.
        teacher: B x C x h x w.
        scaling: what the absolute differences of the unit vectors are averaged or summed to over
            D = Chw: ``mean``, ``sum``, or ``sqrt``, the mean times sqrt(D).

    Returns:
        The mean over the batch.
    """
    one, other = (functional.normalize(each.float().flatten(1)) for each in (student, teacher))
    size = one.shape[1]
    scale = {"mean": 1.0, "sum": size, "sqrt": size**0.5}[scaling]
    return scale * functional.l1_loss(one, other)


def _layers(kind: type[nn.Module], widths: Sequence[int], activate_last: bool) -> nn.Sequential:
    """Return 3 x 3 convolutions of a kind from width to width, with LeakyReLU behind each."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [kind(before, after, 3, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers if activate_last else layers[:-1])


@register
class FEED(Distiller):
    """Several teachers at feature level: a non-linear translator for each (FEED-style)."""

    default_weights: ClassVar = {"feature": 0.1}
    paper: ClassVar = "Park and Kwak, arXiv 1909.10754"
    year: ClassVar = 2019

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        paraphraser: bool = True,
        rate: float = 0.5,
        scaling: Scaling = "sqrt",
        paraphraser_iter: int = 500,
        paraphraser_lr: float = 3e-3,
    ) -> None:
        """Build translators and paraphrasers.

        Args:
            setting: taps; of each teacher's only the last pair counts.
            weights: weight of the term ``feature``.
            paraphraser: whether the target is the paraphraser's factor or the feature itself.
            rate: k, channels of the factor for one channel of the teacher's feature.
            scaling: see :func:`factor_distance`.
            paraphraser_iter: iterations in which the paraphrasers learn, before the student does.
            paraphraser_lr: learning rate at their beginning.

        Raises:
            LsfdError: ``rate`` or ``paraphraser_iter`` is out of its range.
        """
        super().__init__(setting, weights)
        if rate <= 0:
            raise LsfdError(f"rate: must be more than 0, not {rate}")
        if paraphraser_iter < 0:
            raise LsfdError(f"paraphraser_iter: must be at least 0, not {paraphraser_iter}")
        self.taps = [taps[-1] for taps in setting.taps]
        self.translators, self.encoders, self.decoders = (nn.ModuleList() for _ in range(3))
        for tap in self.taps:
            mine, theirs, factors = tap.student_channels, tap.teacher_channels, tap.teacher_channels
            if paraphraser:
                factors = max(1, round(rate * theirs))
                widths = [theirs, theirs, factors, factors]
                self.encoders.append(_layers(nn.Conv2d, widths, activate_last=True))
                self.decoders.append(_layers(nn.ConvTranspose2d, widths[::-1], activate_last=False))
            self.translators.append(_layers(nn.Conv2d, [mine, mine, factors, factors], paraphraser))
        self.scaling = scaling
        self._stage = Stage("paraphraser", paraphraser_iter, runs_student=False, lr=paraphraser_lr)

    def stages(self) -> Sequence[Stage]:
        """Return the paraphrasers' stage, if there are any."""
        return (self._stage,) if self.encoders else ()

    def stage_terms(self, stage: Stage, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"reconstruction": ...}``, averaged over teachers."""
        losses = []
        for index, feature in enumerate(self._targets(batch)):
            decoded = self.decoders[index](self.encoders[index](feature))
            losses.append(functional.l1_loss(decoded.float(), feature))
        return {"reconstruction": torch.stack(losses).mean()}

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"feature": ...}``, averaged over teachers."""
        losses = []
        for index, feature in enumerate(self._targets(batch)):
            mine = self.translators[index](batch.student_features[self.taps[index].student])
            losses.append(factor_distance(mine, self._factor(index, feature), self.scaling))
        return {"feature": torch.stack(losses).mean()}

    def _targets(self, batch: DistillationBatch) -> list[Tensor]:
        features = zip(batch.teacher_features, self.taps, strict=True)
        return [theirs[tap.teacher].float() for theirs, tap in features]

    def _factor(self, index: int, feature: Tensor) -> Tensor:
        if not self.encoders:
            return feature
        with torch.no_grad():
            return self.encoders[index](feature)
