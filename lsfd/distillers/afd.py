"""AFD: networks trained together imitate each other's images, and fool critics of their features.

Chung et al., "Feature-map-level Online Adversarial Knowledge Distillation" (ICML 2020, arXiv
2002.01775). Not to be confused with other methods of this acronym.

K networks, the student and its peers, stand in a circle: k' = k + 1 is whom k learns from, and the
last one learns from the first; two networks learn from each other. S_k: B x 3 x sh x sw; F_k:
B x C_k x h x w at the last tap; T_k: a 1 x 1 convolution C_k -> C (C = max_k C_k), none where
C_k = C; D_k: a row of convolutions with a sigmoid behind it, B x 1 x h x w in 0..1.

    common step:        L_output  = sum_k mean |S_k - sg S_k'|
    turn discriminator: L_D,k     = mean (1 - D_k(sg T_k'(F_k')))^2 + mean D_k(sg T_k(F_k))^2
    turn adversarial:   L_G,k     = mean (1 - D_k(T_k(F_k)))^2

sg: stop-gradient. D_k calls the feature of its own network false and that of k' true, the network
tries to be called true; where the two cannot be told apart, D = 1/2, L_D = 1/2 and L_G = 1/4. Each
turn has an optimiser of its own: the first moves D, the second networks and T. Every network's own
loss, mean |S_k - y|, is ``train.pixel_opt``. At the end each network is used by itself.

What the paper states, by its abstract and by summaries and code of third parties (we found none of
the authors): the equations above with class scores in place of images (cross entropy, and the
divergence times the temperature's square); separate optimisers, one after the other in every batch,
with a much smaller learning rate (Adam, 2e-5) for the features; layers for unequal widths; D =
convolution, batch normalisation, leaky ReLU, convolution, sigmoid; the circle for more than two
networks, with K discriminators.

What is our choice: images and L1; the circle for images as well; half the pixel loss's weight for
L_output, since with equal weights a pixel between its two targets is pulled to neither; a score for
every patch (D_k sees 5 x 5 pixels of the feature) and not for a whole image; D_k's input normalised
(see :class:`Discriminator`); its learning rate, with which it keeps pace in a short run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Turn, register
from lsfd.distillers.regressor import regressor
from lsfd.errors import LsfdError

DISCRIMINATOR = "discriminator"
ADVERSARIAL = "adversarial"


class Discriminator(nn.Module):
    """Says of each patch of a feature whose it is: 1: the other network's, 0: the own one's."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            # EDSR's features are in a range such as 0..255, and another network's in another one:
            # D is to judge what features look like, not to tell networks apart by their scale.
            nn.BatchNorm2d(channels, affine=False, track_running_stats=False),
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, track_running_stats=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Return B x 1 x h x w in 0..1, float32.

        Args:
            feature: B x C x h x w.
        """
        scores: Tensor = self.layers(feature.float())
        return scores.float().sigmoid()


def discriminator_loss(true: Tensor, false: Tensor) -> Tensor:
    """Return L_D of the scores of the other network's feature and of the own one's."""
    return (1 - true).square().mean() + false.square().mean()


def adversarial_loss(false: Tensor) -> Tensor:
    """Return L_G of the scores of the own network's feature."""
    return (1 - false).square().mean()


@register
class AFD(Distiller):
    """Networks trained together: images, and by discriminators features, like each other's."""

    default_weights: ClassVar = {"output": 0.5}
    paper: ClassVar = "Chung et al., arXiv 2002.01775"
    year: ClassVar = 2020
    needs_teacher: ClassVar = False
    needs_peers: ClassVar = True

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        width: int = 64,
        adversarial_lr: float = 2e-5,
        discriminator_lr: float = 1e-4,
    ) -> None:
        """Build a discriminator for each network.

        Args:
            setting: taps, the last of which counts.
            weights: weight of the term ``output``.
            width: channels inside a discriminator.
            adversarial_lr: learning rate with which networks learn to fool discriminators.
            discriminator_lr: learning rate of the discriminators.

        Raises:
            LsfdError: a number is out of its range.
        """
        super().__init__(setting, weights)
        if width < 1:
            raise LsfdError(f"width: must be at least 1, not {width}")
        rates = {"adversarial_lr": adversarial_lr, "discriminator_lr": discriminator_lr}
        for name, rate in rates.items():
            if rate <= 0:
                raise LsfdError(f"{name}: must be more than 0, not {rate}")
        last = [taps[-1] for taps in setting.peer_taps]
        self.student_tap = last[0].student
        self.peer_taps = [tap.teacher for tap in last]
        widths = [last[0].student_channels, *(tap.teacher_channels for tap in last)]
        common = max(widths)
        self.transfers = nn.ModuleList(
            regressor(own, common, kernel=0 if own == common else 1) for own in widths
        )
        self.discriminators = nn.ModuleList(Discriminator(common, width) for _ in widths)
        self.adversarial_lr = adversarial_lr
        self.discriminator_lr = discriminator_lr

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"output": ...}``."""
        images = [batch.student, *batch.peers]
        distances = [
            functional.l1_loss(own, other.detach())
            for own, other in zip(images, _next(images), strict=True)
        ]
        return {"output": torch.stack(distances).sum()}

    def turns(self) -> Sequence[Turn]:
        """Return the discriminators' turn, then the networks'."""
        return (
            Turn(DISCRIMINATOR, self.discriminator_lr),
            Turn(ADVERSARIAL, self.adversarial_lr, trains_networks=True),
        )

    def turn_parameters(self, turn: Turn) -> Iterable[nn.Parameter]:
        """Return the discriminators' parameters, or those of the layers T."""
        return (self.transfers if turn.trains_networks else self.discriminators).parameters()

    def turn_terms(self, turn: Turn, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return one term for each network, such as ``adversarial`` and ``adversarial_peer1``."""
        losses = self._fooling(batch) if turn.trains_networks else self._telling_apart(batch)
        suffixes = ["", *(f"_peer{number}" for number in range(1, len(losses)))]
        return {f"{turn.name}{end}": loss for end, loss in zip(suffixes, losses, strict=True)}

    def _telling_apart(self, batch: DistillationBatch) -> list[Tensor]:
        features = [feature.detach() for feature in self._features(batch)]
        both = zip(self.discriminators, _next(features), features, strict=True)
        return [discriminator_loss(judge(true), judge(false)) for judge, true, false in both]

    def _fooling(self, batch: DistillationBatch) -> list[Tensor]:
        losses = []
        for judge, feature in zip(self.discriminators, self._features(batch), strict=True):
            frozen = {name: parameter.detach() for name, parameter in judge.named_parameters()}
            losses.append(adversarial_loss(functional_call(judge, frozen, feature)))
        return losses

    def _features(self, batch: DistillationBatch) -> list[Tensor]:
        """Return every network's feature in the common width."""
        theirs = zip(batch.peer_features, self.peer_taps, strict=True)
        features = [batch.student_features[self.student_tap], *(each[tap] for each, tap in theirs)]
        return [layer(own).float() for layer, own in zip(self.transfers, features, strict=True)]


def _next(networks: Sequence[Tensor]) -> list[Tensor]:
    """Return what each network learns from: the next one's, the last one the first one's."""
    return [*networks[1:], networks[0]]
