"""MiPKD-style: mixtures of student and teacher, in features and in blocks.

After Li et al., "Knowledge Distillation with Multi-granularity Mixture of Priors for Image
Super-Resolution" (arXiv 2404.02573, ICLR 2025). For each pair of taps l, with the student's feature
F_S (B x Cs x h x w) and the teacher's F_T (B x Ct x h x w, no gradient):

    Z_S = E_S(F_S),  Z_T = E_T(F_T)          encoders to one latent width, B x C x h x w
    Z   = I * Z_S + (1 - I) * Z_T            I: random, 0 or 1 at each position of B x C x h x w
    F^  = D_T(Z)                             decoder C -> Ct
    L_l = mean |F^ - F_T| + mean |D_T(Z_T) - F_T| + mean |D_S(sg Z_S) - sg F_S|

    L_feature = sum_l L_l                    feature prior mixer
    L_block   = mean |M(Z_1) - T(x)|         block prior mixer
    L_output  = mean |S(x) - T(x)|

M: the mixed feature of the first pair of taps goes on through what lies behind it. For each stage
(from a tap to the next, and from the last tap to the image) a coin decides whether the student's or
the teacher's blocks are taken; D_S and D_T hand the feature to a network, E_S and E_T take it back
where the other network goes on. The teacher's blocks are frozen, gradients flow through them. All
terms are averaged over teachers; encoders and decoders are dropped after training. Taps must be
listed from the input to the output.

What a step costs beside the usual passes of student and teacher: the encoders and decoders, and a
pass of one network for each run of equal coins: with three taps two on average, each the student's
or the teacher's, with backward. Weight 0 on ``block`` saves these.

What is known to us, from the abstract and from summaries (the paper's text and its code were not
available): separate encoders to one latent space, a random three-dimensional mask, the auto-encoder
loss, the random choice of blocks, L1 everywhere, the sum "reconstruction + output + feature + 0.1
block". Our choice: the layers of encoders and decoders, the mask's ratio, one coin for each stage
and batch, one chain from the first tap (not one from each), D_S and its term (a student of another
width needs them), the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, Tap, register
from lsfd.distillers.output import output_loss
from lsfd.distillers.regressor import regressor
from lsfd.errors import LsfdError


class Coder(nn.Module):
    """An encoder or decoder: a 1 x 1 convolution, and a residual branch of two 3 x 3 ones.

    The branch starts at zero, so that a coder between equal widths starts as the identity.
    """

    def __init__(self, channels: int, wanted: int) -> None:
        super().__init__()
        self.projection = regressor(channels, wanted, kernel=1)
        last = nn.Conv2d(wanted, wanted, 3, padding=1)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.branch = nn.Sequential(nn.Conv2d(wanted, wanted, 3, padding=1), nn.ReLU(), last)

    def forward(self, feature: Tensor) -> Tensor:
        """Return N x wanted x h x w."""
        projected = self.projection(feature)
        return projected + self.branch(projected)


class Codec(nn.Module):
    """Encoders and decoders of one pair of taps."""

    def __init__(self, tap: Tap, latent: int) -> None:
        super().__init__()
        self.encode_student = Coder(tap.student_channels, latent)
        self.encode_teacher = Coder(tap.teacher_channels, latent)
        self.decode_student = Coder(latent, tap.student_channels)
        self.decode_teacher = Coder(latent, tap.teacher_channels)

    def encode(self, feature: Tensor, of_student: bool) -> Tensor:
        """Return the latent feature of the student's feature or of the teacher's."""
        return (self.encode_student if of_student else self.encode_teacher)(feature)

    def decode(self, latent: Tensor, for_student: bool) -> Tensor:
        """Return the feature that takes the place of the student's or the teacher's."""
        return (self.decode_student if for_student else self.decode_teacher)(latent)


@register
class MiPKD(Distiller):
    """Random mixtures of student and teacher features, continued through blocks of both."""

    default_weights: ClassVar = {"output": 1.0, "feature": 0.1, "block": 10.0}
    paper: ClassVar = "Li et al., arXiv 2404.02573"
    year: ClassVar = 2024

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        latent: int | None = None,
        ratio: float = 0.5,
    ) -> None:
        """Build encoders and decoders.

        Args:
            setting: the taps.
            weights: weights of the terms ``output``, ``feature`` and ``block``; with 0 on
                ``block`` it is not computed.
            latent: channels of the latent features; null: the teacher's.
            ratio: share of the student in the mixed features, above 0 and at most 1.

        Raises:
            LsfdError: an option is out of its range.
        """
        super().__init__(setting, weights)
        if latent is not None and latent < 1:
            raise LsfdError(f"latent: must be at least 1, not {latent}")
        if not 0 < ratio <= 1:
            raise LsfdError(f"ratio: must be above 0 and at most 1, not {ratio}")
        self.ratio = ratio
        self.codecs = nn.ModuleList(
            nn.ModuleList(Codec(tap, latent or tap.teacher_channels) for tap in taps)
            for taps in setting.taps
        )

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``output``, ``feature`` and, unless its weight is 0, ``block``."""
        features, blocks = [], []
        for teacher, target in enumerate(batch.teachers):
            latent, loss = self.mix_features(batch, teacher)
            features.append(loss)
            if self.weights["block"] > 0:
                # On the CPU, so that no device has to be waited for.
                coins = (torch.rand(len(self.setting.taps[teacher])) < 0.5).tolist()
                image = self.mix_blocks(batch, teacher, latent, coins)
                blocks.append(functional.l1_loss(image, target))
        terms = {"output": output_loss(batch), "feature": torch.stack(features).mean()}
        if blocks:
            terms["block"] = torch.stack(blocks).mean()
        return terms

    def mix_features(self, batch: DistillationBatch, teacher: int) -> tuple[Tensor, Tensor]:
        """Return the first pair's mixed latent feature, B x C x h x w, and the feature loss."""
        mixtures, losses = [], []
        for tap, codec in zip(self.setting.taps[teacher], self._codecs(teacher), strict=True):
            student = batch.student_features[tap.student]
            target = batch.teacher_features[teacher][tap.teacher]
            own, theirs = codec.encode_student(student), codec.encode_teacher(target)
            mixed = torch.where(self._mask(own), own, theirs)
            # Only the decoder learns to bring the student's feature back, not the student.
            losses += [
                _distance(codec.decode_teacher(mixed), target),
                _distance(codec.decode_teacher(theirs), target),
                _distance(codec.decode_student(own.detach()), student.detach()),
            ]
            mixtures.append(mixed)
        return mixtures[0], torch.stack(losses).sum()

    def mix_blocks(
        self, batch: DistillationBatch, teacher: int, latent: Tensor, coins: Sequence[bool]
    ) -> Tensor:
        """Return the image that a chain of student's and teacher's blocks makes, float32.

        Args:
            batch: the batch.
            teacher: whose blocks these are.
            latent: what the first pair of taps has instead of its feature, B x C x h x w.
            coins: for each stage behind a tap whether the student's blocks are taken.
        """
        taps, codecs = self.setting.taps[teacher], self._codecs(teacher)
        first = 0
        for own, run in groupby(coins):
            network = batch.student_network if own else batch.teacher_networks[teacher]
            names = [tap.student if own else tap.teacher for tap in taps]
            start = {names[first]: codecs[first].decode(latent, own)}
            image, features = network(batch.lq, start)
            first += len(list(run))
            if first < len(taps):
                latent = codecs[first].encode(features[names[first]], own)
        return image.float()

    def _codecs(self, teacher: int) -> list[Codec]:
        return [cast(Codec, codec) for codec in cast(nn.ModuleList, self.codecs[teacher])]

    def _mask(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, device=like.device) < self.ratio


def _distance(feature: Tensor, target: Tensor) -> Tensor:
    return functional.l1_loss(feature.float(), target.float())
