"""CSD: the student's image is pulled to the teacher's and pushed from blurred ones.

    L_contrastive = sum_j lambda_j * d(phi_j(S(x)), phi_j(sg T(x)))
                                   / (sum_k d(phi_j(S(x)), phi_j(up(x_k))) + 1e-7)

S(x), T(x): B x 3 x sh x sw; x_k: K low-resolution images of the batch, enlarged by bicubic
interpolation (torch's, as in the official code; an enlargement needs no antialiasing); d: mean
absolute difference; phi and lambda: see :mod:`lsfd.distillers.perception`. Averaged over teachers.

Wang et al., "Towards Compact Single Image Super-Resolution via Contrastive Self-distillation"
(IJCAI 2021, arXiv 2105.11683). What the official code does and is done here: this loss, its lambda,
its sum over the negatives, K = 10; the first K images of the batch serve as negatives for every
image, so that these K meet their own low-resolution version, too (``own_negative``).

What differs: CSD's student is a slice of the teacher's channels and both are trained; here, as for
all methods, the student has its own weights and the teacher is frozen. A batch smaller than K gives
as many negatives as it has. Without VGG's weights the teacher takes VGG's place, which is our
choice. The official weight, 200 for images in 0..255 and VGG, is 0.78 for images in 0..1.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.perception import FeatureNetwork, PerceptualContrast, others
from lsfd.errors import LsfdError


@register
class CSD(Distiller):
    """Contrastive loss on images: near the teacher's, far from bicubic ones."""

    default_weights: ClassVar = {"contrastive": 0.78}
    paper: ClassVar = "Wang et al., arXiv 2105.11683"
    year: ClassVar = 2021

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        network: FeatureNetwork = "auto",
        vgg_weights: str | None = None,
        negatives: int = 10,
        own_negative: bool = True,
    ) -> None:
        """Build the feature network.

        Args:
            setting: taps and scale.
            weights: weight of the term ``contrastive``.
            network: in whose features images are compared: ``vgg``; ``teacher``, at its taps;
                ``auto``: ``vgg`` where its weights are there, otherwise ``teacher``.
            vgg_weights: torchvision's file vgg19-dcbb9e9d.pth; null: the one in torch's folder of
                downloads.
            negatives: K; at most what the batch has.
            own_negative: whether an image's own low-resolution version may be among its negatives,
                as in the official code; false takes other images of the batch only.

        Raises:
            LsfdError: there is no negative, or VGG's weights are missing.
        """
        super().__init__(setting, weights)
        if negatives < 1:
            raise LsfdError(f"negatives: must be at least 1, not {negatives}")
        self.contrast = PerceptualContrast(setting, network, vgg_weights)
        self.negatives = negatives
        self.own_negative = own_negative

    @property
    def network(self) -> str:
        """What features are compared: ``vgg`` or ``teacher``."""
        return self.contrast.network

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return ``{"contrastive": ...}``.

        Raises:
            LsfdError: an image has no other in its batch.
        """
        size = batch.student.shape[2:]
        if self.own_negative:
            images = functional.interpolate(batch.lq[: self.negatives], size, mode="bicubic")
            return {"contrastive": self.contrast(batch, images, lambda all_: all_.split(1))}
        count = min(self.negatives, len(batch.lq) - 1)
        if count < 1:
            raise LsfdError(
                "own_negative: false needs at least 2 images at a time; raise "
                "datasets.train.batch_size_per_gpu or lower train.accumulate"
            )
        images = functional.interpolate(batch.lq, size, mode="bicubic")
        return {"contrastive": self.contrast(batch, images, lambda all_: others(all_, count))}
