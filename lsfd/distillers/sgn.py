"""SGN-style: one student for all mixtures of several losses; the person picks the mixture at use.

With shares s[b] of K objectives for each image b of the batch, drawn anew in every step and given
to the student, whose gates they move (:mod:`lsfd.networks.gated_edsr`):

    s[b] ~ Dirichlet(c, .., c) in R^K,   s[b,i] >= 0,   sum_i s[b,i] = 1;   c = 1/2
    L_i  = mean_b s[b,i] * l_i(S(x_b, s[b]), ...)          one term for each objective i

S(x, s), T(x), y: B x 3 x sh x sw. The objectives are those that the student lists:

    l_fidelity   = mean |S - y|
    l_teacher    = mean |S - sg T|                                      averaged over teachers
    l_perceptual = sum_j lambda_j (mean |P_j - Q_j| / mean |Q_j|
                                   + t * mean |gram(P_j) - gram(Q_j)| / mean |gram(Q_j)|)

P_j = phi_j(S), Q_j = phi_j(y): C_j x h_j x w_j for each image, as C_j x N_j matrices for
gram(P) = (P - mean P) (P - mean P)^T / N, the covariance of the channels, C_j x C_j; phi and
lambda: see :mod:`lsfd.distillers.perception`. The denominators are means over the batch, so that
patches without detail, where they would vanish for an image alone, stay harmless.

Chang, Park, Yang, Kwak, "Sym-parameterized Dynamic Inference for Mixed-Domain Image Translation"
(ICCV 2019, arXiv 1811.12362). What the paper and the authors' code state: the "sym-parameter" s as
a condition of the network and the weights of the losses at once; one draw from Dirichlet(1/2) for
each image; a loss of each image multiplied by its share before the mean; the gates; among the
losses a reconstruction (L1) and a perceptual one of features and Gram matrices.

What is our choice, because theirs is a network for translating images between domains: the three
objectives of super-resolution (theirs has an adversarial one in the teacher's place); both
perceptual distances as ratios, which makes them independent of phi's units; t; the mean taken off
before the covariance. Without VGG's weights the teacher takes VGG's place. Its features alone,
being almost linear in the image, ask for the same blurred mean as L1 does; the covariances miss
the detail that blurring takes away, hence t > 1. With t = 3 and half the weight, mixtures could
hardly be told apart after 4,000 steps.

The reconstruction loss of the option file would add a share of fidelity that nobody picked: set
``train.pixel_opt: null``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.perception import EPSILON, FeatureNetwork, Perception
from lsfd.errors import LsfdError, nearest

TEXTURE = 30.0
"""t, how much covariances of features count beside the features."""


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean absolute difference for each image: B, for two tensors B x ..."""
    return (first - second).abs().flatten(1).mean(1)


def ratio(first: Tensor, second: Tensor) -> Tensor:
    """Return the distance for each image over the mean size of the second: B."""
    return distance(first, second) / (second.abs().mean() + EPSILON)


def covariance(features: Tensor) -> Tensor:
    """Return the covariance of the channels over an image: B x C x h x w -> B x C x C."""
    flat = features.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    with torch.autocast(features.device.type, enabled=False):
        return flat @ flat.mT / flat.shape[2]


class PerceptualDistance(Perception):
    """l_perceptual of each image."""

    def __init__(
        self, setting: Setting, network: FeatureNetwork, vgg_weights: str | None, texture: float
    ) -> None:
        """Find the feature network; the arguments are those of :class:`SGN`."""
        super().__init__(setting, network, vgg_weights)
        self.texture = texture

    def forward(self, batch: DistillationBatch) -> Tensor:
        """Return the distance of the student's images to the ground truth: B."""
        rows, columns = self.window(batch)
        student, original = batch.student[..., rows, columns], batch.gt[..., rows, columns]
        networks = len(batch.teacher_networks) if self.network == "teacher" else 1
        return torch.stack(
            [self._distance(student, original, batch, number) for number in range(networks)]
        ).mean(0)

    def _distance(
        self, student: Tensor, original: Tensor, batch: DistillationBatch, teacher: int
    ) -> Tensor:
        mine = self.features(student, batch, teacher)
        with torch.no_grad():
            wanted = self.features(original, batch, teacher)
        levels = [self._level(p, q) for p, q in zip(mine, wanted, strict=True)]
        return (self.level_weights(levels)[:, None] * torch.stack(levels)).sum(0)

    def _level(self, mine: Tensor, wanted: Tensor) -> Tensor:
        content = ratio(mine, wanted)
        if self.texture == 0:
            return content
        return content + self.texture * ratio(covariance(mine), covariance(wanted))


@register
class SGN(Distiller):
    """One student for any mixture of fidelity, perception and the teacher's image (SGN-style)."""

    default_weights: ClassVar = {"fidelity": 1.0, "perceptual": 0.02, "teacher": 1.0}
    paper: ClassVar = "Chang et al., arXiv 1811.12362"
    year: ClassVar = 2019

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        concentration: float = 0.5,
        network: FeatureNetwork = "auto",
        vgg_weights: str | None = None,
        texture: float = TEXTURE,
    ) -> None:
        """Read the student's objectives and find the feature network.

        Args:
            setting: taps and scale; the student lists its objectives.
            weights: weights of the terms ``fidelity``, ``perceptual`` and ``teacher``, of which
                there are those that the student has as objectives.
            concentration: c of the Dirichlet distribution; small: mostly one objective, 1: all
                mixtures alike, large: all objectives in equal shares.
            network: what features ``perceptual`` compares: ``vgg``; ``teacher``, at its taps;
                ``auto``: ``vgg`` where its weights are there, otherwise ``teacher``.
            vgg_weights: torchvision's file vgg19-dcbb9e9d.pth; null: the one in torch's folder of
                downloads.
            texture: t, how much covariances count beside features; 0: not computed.

        Raises:
            LsfdError: the student takes no mixture or has an objective that is unknown here, an
                option is out of its range, or VGG's weights are missing.
        """
        super().__init__(setting, weights)
        if concentration <= 0:
            raise LsfdError(f"concentration: must be above 0, not {concentration}")
        if texture < 0:
            raise LsfdError(f"texture: must be at least 0, not {texture}")
        self.objectives = self._objectives(setting)
        self.concentration = concentration
        self.perception = PerceptualDistance(setting, network, vgg_weights, texture)

    @property
    def network(self) -> str:
        """What features are compared: ``vgg`` or ``teacher``."""
        return self.perception.network

    def _objectives(self, setting: Setting) -> tuple[str, ...]:
        objectives: tuple[str, ...] = getattr(setting.student, "objectives", ())
        if not objectives:
            raise LsfdError(
                f"network_g.type: SGN gives the student a mixture of losses, and "
                f"{type(setting.student).__name__} takes none; use GatedEDSR"
            )
        for name in objectives:
            if name not in self.default_weights:
                hint = nearest(name, self.default_weights)
                raise LsfdError(f"network_g.objectives: SGN has no loss '{name}'{hint}")
        return objectives

    def inputs(self, lq: Tensor) -> dict[str, Tensor]:
        """Return a mixture for each image: ``{"mixture": B x K}``."""
        # On the CPU, so that all devices get the same.
        concentrations = torch.full((len(self.objectives),), self.concentration)
        mixture = torch.distributions.Dirichlet(concentrations).sample((len(lq),))
        return {"mixture": mixture.to(lq.device)}

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return one term for each objective of the student whose weight is not 0."""
        mixture = batch.inputs["mixture"]
        return {
            name: (mixture[:, index] * self.losses[name](batch)).mean()
            for index, name in enumerate(self.objectives)
            if self.weights[name] > 0
        }

    @property
    def losses(self) -> dict[str, Callable[[DistillationBatch], Tensor]]:
        """What each objective costs each image, B, by its name."""
        return {
            "fidelity": lambda batch: distance(batch.student, batch.gt),
            "perceptual": self.perception,
            "teacher": teacher_distance,
        }


def teacher_distance(batch: DistillationBatch) -> Tensor:
    """Return each image's L1 distance to the teacher's, averaged over teachers: B."""
    return torch.stack([distance(batch.student, image) for image in batch.teachers]).mean(0)
