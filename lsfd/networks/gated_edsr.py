"""EDSR with channel gates that a mixture of objectives moves: one network for all mixtures.

    F_0 = g_0(conv_first(img_range (x - mean)), s)
    F_t = g_t(blocks of the t-th third of the body(F_(t-1)), s),   t = 1..3
    y   = conv_last(upsample(conv_after_body(F_3) + F_0)) / img_range + mean
    g(F, s) = F * sigmoid(W_2 relu(W_1 [avgpool(F) / img_range; relu(W_0 s)]))

x: N x 3 x h x w; F: N x C x h x w; s: N x K, shares of K objectives, none negative, their sum 1;
W_0: C x K, W_1: C/4 x 2C, W_2: C x C/4, all with bias; avgpool: the mean over the whole image.

Chang, Park, Yang, Kwak, "Sym-parameterized Dynamic Inference for Mixed-Domain Image Translation"
(ICCV 2019, arXiv 1811.12362). The gate, its reduction by 4 and its places, after the stem and after
residual stages, are those of the authors' code for translating images. Our choice: EDSR around it,
stages that are thirds of its body, C channels for W_0 s, Kaiming's start for the gates; and
avgpool(F) / img_range, for features in the range of 0..255 would drown shares in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import lsfd.compat  # noqa: F401

import torch
from basicsr.archs.arch_util import ResidualBlockNoBN, Upsample, make_layer
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from lsfd.errors import LsfdError, nearest
from lsfd.networks.keys import DIV2K_MEAN

REDUCTION = 4
STAGES = 3


class ChannelGate(nn.Module):
    """A factor in 0..1 for each channel, from the image's mean features and a mixture."""

    def __init__(self, num_feat: int, num_objectives: int, img_range: float) -> None:
        """Make a gate with fresh weights.

        Args:
            num_feat: C.
            num_objectives: K.
            img_range: what the mean features are divided by.
        """
        super().__init__()
        hidden = max(1, num_feat // REDUCTION)
        self.img_range = img_range
        self.condition = nn.Sequential(nn.Linear(num_objectives, num_feat), nn.ReLU())
        self.squeeze = nn.Sequential(nn.Linear(2 * num_feat, hidden), nn.ReLU())
        self.excite = nn.Sequential(nn.Linear(hidden, num_feat), nn.Sigmoid())
        for name, parameter in self.named_parameters():
            # PyTorch's default shrinks what passes so much that the mixture would hardly be heard
            # at the start, and the network would learn to do without it.
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def factors(self, feature: Tensor, mixture: Tensor) -> Tensor:
        """Return the factors, N x C x 1 x 1, for N x C x h x w and N x K."""
        pooled = feature.mean((2, 3)) / self.img_range
        both = torch.cat([pooled, self.condition(mixture)], 1)
        factors: Tensor = self.excite(self.squeeze(both))
        return factors[..., None, None]

    def forward(self, feature: Tensor, mixture: Tensor) -> Tensor:
        """Return the gated feature, N x C x h x w."""
        return feature * self.factors(feature, mixture)


@ARCH_REGISTRY.register()
class GatedEDSR(nn.Module):
    """EDSR for a mixture of objectives that is chosen at use, with channel gates.

    The gates see the mean of the whole image: upscaled in tiles, an image differs a little from
    what it is in one go, as RCAN's does.

    Attributes:
        objectives: names of the K objectives.
        mixture: the shares that count where forward is given none, K; saved with the weights.
    """

    mean: Tensor
    mixture: Tensor

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        res_scale: float = 1,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = DIV2K_MEAN,
        objectives: Sequence[str] = ("fidelity", "perceptual", "teacher"),
    ) -> None:
        """Make a network with fresh weights, for the first objective alone until told otherwise.

        Args:
            num_in_ch: 3.
            num_out_ch: 3.
            num_feat: C, the channels of the features.
            num_block: residual blocks in the body; fewer than three make fewer stages.
            upscale: s, a power of 2, or 3.
            res_scale: factor of the residuals.
            img_range: the range of values the network works in.
            rgb_mean: the mean of the three colours, in 0..1.
            objectives: names of what a mixture has shares of, at least two.

        Raises:
            LsfdError: there are not at least two objectives of different names.
        """
        super().__init__()
        if len(objectives) < 2 or len(set(objectives)) < len(objectives):
            raise LsfdError(
                "objectives: a mixture takes at least two names, all different, not "
                f"{', '.join(objectives) or 'none'}"
            )
        self.objectives = tuple(objectives)
        self.img_range = img_range
        # EDSR's mean is no part of its state dict.
        mean = torch.tensor(rgb_mean, dtype=torch.float32).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("mixture", torch.eye(len(objectives))[0].clone())
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = make_layer(
            ResidualBlockNoBN, num_block, num_feat=num_feat, res_scale=res_scale, pytorch_init=True
        )
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        self.stage_ends = sorted({num_block * stage // STAGES for stage in range(STAGES + 1)})
        self.gates = nn.ModuleList(
            ChannelGate(num_feat, len(objectives), img_range) for _ in self.stage_ends
        )

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        """Enlarge RGB images in 0..1: N x 3 x h x w -> N x 3 x sh x sw.

        Args:
            x: the images.
            mixture: the shares of the objectives for each image, N x K, their sum 1; None: the
                stored ones.
        """
        if mixture is None:
            mixture = self.mixture.expand(x.shape[0], -1)  # len() would be a constant in an export.
        mixture = mixture.to(x.dtype)
        mean = self.mean.type_as(x)
        shallow = self.gates[0](self.conv_first((x - mean) * self.img_range), mixture)
        deep = shallow
        for number, block in enumerate(self.body, start=1):
            deep = block(deep)
            if number in self.stage_ends:
                deep = self.gates[self.stage_ends.index(number)](deep, mixture)
        deep = self.conv_after_body(deep) + shallow
        return self.conv_last(self.upsample(deep)) / self.img_range + mean

    def set_mixture(self, shares: Mapping[str, float]) -> None:
        """Store a mixture, divided by its sum; an objective that is not named has no share.

        Raises:
            LsfdError: a name is unknown, a share is negative or not finite, or all are 0.
        """
        for name, share in shares.items():
            if name not in self.objectives:
                hint = nearest(name, self.objectives)
                raise LsfdError(f"mixture.{name}: the network has no such objective{hint}")
            if not (math.isfinite(share) and share >= 0):
                raise LsfdError(
                    f"mixture.{name}: a share is a finite number of at least 0, not {share}"
                )
        total = sum(shares.values())
        if not 0 < total < math.inf:
            raise LsfdError(
                "mixture: the shares' sum must be above 0 and finite; give some of "
                f"{', '.join(self.objectives)}"
            )
        values = [shares.get(name, 0.0) / total for name in self.objectives]
        self.mixture.copy_(self.mixture.new_tensor(values))
