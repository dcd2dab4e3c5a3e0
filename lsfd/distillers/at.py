"""AT: attention transfer; the student's features are strong where the teacher's are.

    Q[b,i,j]  = sum_c |F[b,c,i,j]|^p              an attention map, B x h x w
    U         = Q / ||Q||_2                       norm over each image's h x w
    L_attention = sum over taps of mean_bij |U_S - U_T|^2    (or |U_S - U_T|)

F_S: B x Cs x h x w, F_T: B x Ct x h x w (no gradient). Maps have no channels, so that widths may
differ without a regressor. Averaged over teachers. Zagoruyko and Komodakis, "Paying More Attention
to Attention: Improving the Performance of Convolutional Neural Networks via Attention Transfer"
(arXiv 1612.03928).

What the paper states: the maps with p = 1, 2 or 4, their normalisation, and the L2 norm of their
difference. Its official code has p = 2 and the mean of the squared difference, as ``l2`` here. The
official code of FAKD compares with AT in super-resolution, with p = 2 and the mean absolute
difference, as ``l1`` here; where that code adds 1e-6 to the norm we bound the norm from below.

What is our choice: the taps and the weight. A mean over the entries of unit vectors, the term falls
with the size of the patch, as 1 / (hw), and so must the weight rise; ``l1``, which falls as its
root, is larger throughout and wants about a tenth of the weight on patches of 32 x 32.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register


def attention_map(feature: Tensor, power: int) -> Tensor:
    """Return where a feature is strong.

    Args:
        feature: B x C x h x w.
        power: p, of the absolute values.

    Returns:
        B x hw in float32, at least 0, of unit length for each image (zero for a zero feature).
    """
    maps = feature.float().abs().pow(power).sum(1).flatten(1)
    # Otherwise the squares in the length would leave float32's range, with p = 4 from features of
    # some 20,000 on.
    largest = maps.detach().amax(1, keepdim=True)
    return functional.normalize(maps / largest.masked_fill(largest == 0, 1.0), dim=1)


@register
class AT(Distiller):
    """Attention transfer: the student looks where the teacher does."""

    default_weights: ClassVar = {"attention": 10.0}
    paper: ClassVar = "Zagoruyko and Komodakis, arXiv 1612.03928"
    year: ClassVar = 2016

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        p: Literal[1, 2, 4] = 2,
        distance: Literal["l1", "l2"] = "l2",
    ) -> None:
        """Keep the options.

        Args:
            setting: taps and scale.
            weights: weight of the term ``attention``.
            p: power of the activations; a higher one looks at the strongest places only.
            distance: ``l2``: mean squared difference of the maps, as in the paper's code; ``l1``:
                mean absolute difference, as in FAKD's.
        """
        super().__init__(setting, weights)
        self.p = p
        self.loss = functional.l1_loss if distance == "l1" else functional.mse_loss

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"attention": ...}``."""
        losses = [
            self.loss(
                attention_map(batch.student_features[tap.student], self.p),
                attention_map(features[tap.teacher], self.p),
            )
            for taps, features in zip(self.setting.taps, batch.teacher_features, strict=True)
            for tap in taps
        ]
        return {"attention": torch.stack(losses).sum() / len(self.setting.taps)}
