"""KR-style: the distribution of the teacher's weights as a prior, and sparse feature regression.

After "Knowledge Representing": Liu et al., arXiv 1911.05329 (CVPR workshops 2019).

Tap g ends stage g: the convolutions (and linear layers) after those of the tap before, up to those
of the tap's module, in the order in which the network lists its modules.

    w       = (W - mean(W)) / std(W)    of every filter by itself (one output channel of a layer)
    q_g     = all w of the stage, sorted, averaged over Q equal parts: a vector of Q quantiles
    L_prior = sum_g mean |q_g(S) - sg q_g(T)|

    R_g      = r_g(F_S) - F_T           F_S: B x Cs x h x w, F_T: B x Ct x h x w; r_g: 1 x 1 conv
    m_g      = 1 at the share rho of the sample's elements with the largest |R_g| (or |F_T|)
    L_sparse = sum_g mean(m_g |R_g|) / rho

Both are averaged over teachers. With rho = 1 the second is plain feature distillation by L1.

What the abstract states, the only part available to us: the distribution of the teacher's
parameters is modelled as prior knowledge; it is aggregated to a more abstract level, against
residuals that accumulate in deep layers; a sparse recoding penalty has the student learn with
penalised gradients, against over-regularisation. The equations above are our reading of that,
hence "-style": stages as the level, quantiles as the distribution, the mask as the penalty, the
regressor, Q = 32 and rho = 1/4.

A quantile as the mean of a part of the sorted weights, not as one of them, gives every weight a
gradient. q does not depend on the filters' order, scale or offset, nor on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Network, Setting, register
from lsfd.distillers.regressor import Regressors
from lsfd.errors import LsfdError

Selection = Literal["residual", "teacher"]

EPSILON = 1e-10
"""Added to a filter's variance; fresh EDSRs and the shipped teachers have 3e-4 or more."""


def stage_weights(network: nn.Module, taps: Sequence[str]) -> list[list[Tensor]]:
    """Return the weights of each stage: what lies between one tap and the next.

    Args:
        network: modules are taken in the order of ``named_modules()``.
        taps: paths of modules whose output, or (with ``":input"``) input, ends a stage.

    Returns:
        For each tap the weights of convolutions and linear layers, out x ... each.

    Raises:
        LsfdError: there are none between two taps.
    """
    names = [name for name, _ in network.named_modules()]
    modules = [module for _, module in network.named_modules()]
    ends = [0, *(_end_of(names, tap) for tap in taps)]
    stages = []
    for tap, (begin, end) in zip(taps, pairwise(ends), strict=True):
        layers = [m for m in modules[begin:end] if isinstance(m, (nn.Conv2d, nn.Linear))]
        if not layers:
            raise LsfdError(
                f"taps: no convolution lies between '{tap}' of {type(network).__name__} and the "
                "tap before it, so that KR has no weights to compare; choose taps in order of depth"
            )
        stages.append([layer.weight for layer in layers])
    return stages


def _end_of(names: Sequence[str], tap: str) -> int:
    name = tap.removesuffix(":input")
    begin = names.index(name)
    if name != tap:
        return begin
    return begin + sum(other == name or other.startswith(f"{name}.") for other in names[begin:])


def quantiles(weights: Sequence[Tensor], count: int) -> Tensor:
    """Return the quantiles of a stage's weights, each filter standardised.

    Args:
        weights: out x ... each.
        count: Q.

    Returns:
        Q ascending values.
    """
    filters = [weight.float().flatten(1) for weight in weights]
    centred = [each - each.mean(1, keepdim=True) for each in filters]
    standard = [each * (each.square().mean(1, keepdim=True) + EPSILON).rsqrt() for each in centred]
    ordered = torch.cat([each.flatten() for each in standard]).sort().values
    return functional.adaptive_avg_pool1d(ordered[None], count)[0]


def sparse_distance(
    projected: Tensor, target: Tensor, share: float, selection: Selection
) -> Tensor:
    """Return the mean absolute difference over a share of each sample's elements.

    Args:
        projected: B x C x h x w, the student's feature through its regressor.
        target: B x C x h x w.
        share: rho; rounded to a whole number of elements, at least one.
        selection: whether the largest differences count, or those where the target is largest.
    """
    difference = (projected - target).abs().flatten(1)
    key = difference.detach() if selection == "residual" else target.abs().flatten(1)
    count = max(1, round(share * key.shape[1]))
    return difference.gather(1, key.topk(count, sorted=False).indices).mean()


@register
class KR(Distiller):
    """Weights distributed like the teacher's, features regressed where it counts (KR-style)."""

    default_weights: ClassVar = {"prior": 0.01, "sparse": 3e-5}
    paper: ClassVar = "Liu et al., arXiv 1911.05329"
    year: ClassVar = 2019

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        count: int = 32,
        share: float = 0.25,
        selection: Selection = "residual",
    ) -> None:
        """Build the regressors.

        Args:
            setting: taps, in order of depth.
            weights: weights of the terms ``prior`` (on parameters) and ``sparse`` (on features).
            count: number Q of quantiles.
            share: rho, the share of a feature's elements that count.
            selection: ``residual``: those that differ most; ``teacher``: those where the teacher's
                feature is largest.

        Raises:
            LsfdError: ``count`` or ``share`` is out of its range.
        """
        super().__init__(setting, weights)
        if count < 1:
            raise LsfdError(f"count: must be at least 1, not {count}")
        if not 0 < share <= 1:
            raise LsfdError(f"share: must be more than 0 and at most 1, not {share}")
        self.regressors = Regressors(setting, kernel=1)
        self.count = count
        self.share = share
        self.selection = selection
        # Teachers are frozen, so that sorting their weights once is enough, after a resume as well.
        self._priors: list[Tensor] = []

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"prior": ..., "sparse": ...}``, averaged over teachers."""
        prior = torch.stack(self._prior_distances(batch))
        sparse = [self._sparse_distance(batch, index) for index in range(len(prior))]
        return {"prior": prior.mean(), "sparse": torch.stack(sparse).mean()}

    def _prior_distances(self, batch: DistillationBatch) -> list[Tensor]:
        if not self._priors:
            with torch.no_grad():
                self._priors = [
                    self._quantiles(network, [tap.teacher for tap in taps])
                    for network, taps in zip(batch.teacher_networks, self.setting.taps, strict=True)
                ]
        distances = []
        for prior, taps in zip(self._priors, self.setting.taps, strict=True):
            mine = self._quantiles(batch.student_network, [tap.student for tap in taps])
            distances.append((mine - prior).abs().mean(1).sum())
        return distances

    def _quantiles(self, network: Network, taps: Sequence[str]) -> Tensor:
        stages = stage_weights(network.network, taps)
        return torch.stack([quantiles(weights, self.count) for weights in stages])

    def _sparse_distance(self, batch: DistillationBatch, teacher: int) -> Tensor:
        distances = [
            sparse_distance(projected, target, self.share, self.selection)
            for projected, target in self.regressors(batch, teacher)
        ]
        return torch.stack(distances).sum()
