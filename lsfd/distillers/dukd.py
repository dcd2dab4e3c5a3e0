"""DUKD: data upcycling knowledge distillation (Zhang et al., arXiv 2309.14162).

The patches of a batch, x (B x 3 x h x w) and y (B x 3 x sh x sw), give more inputs for the same
teacher ("upcycling"), whose outputs need no ground truth:

    L_output         = mean |S(x) - T(x)|
    L_zoom_in        = mean |f^-1(S(f(t))) - T(t)|     t: tiles of y, r x r, taken as if they were
                                                       low-resolution, r = min(h, w)
    L_zoom_out       = mean |S(d) - T(d)|              d = x shrunk by s: B x 3 x h/s x w/s
    L_zoom_out_pixel = mean |S(d) - x|

f (the "label consistency" regularisation) consists of four operations: invert the colours, flip
horizontally, flip vertically, transpose; each is applied to each tile with probability 0.3. The
teacher sees the clean tile. Outputs of T carry no gradient; all terms are averaged over teachers.

What a step costs beside the student's and the teacher's pass over x: zoom_in takes ``tiles``
passes of both over patches of that size (those of the student with backward), zoom_out and
zoom_out_pixel together 1/s^2 of a pass of both. A term of weight 0 is not computed.

What the authors' code states (github.com/yun224/DUKD): the terms; the tiles, drawn from the s x s
cells of y's grid without repetition, the same cells for the whole batch; 1 tile (EDSR x2: 2);
probability 0.3; for EDSR five times the weight on L1 against images (the reconstruction loss and
zoom_out_pixel) that the other terms have. The defaults here keep the ratios of the four terms, all
ten times as large beside a reconstruction loss of weight 1: the best that was tried
(options/weights_x4.yml). For some students the code leaves zoom_out or f out.

Where this differs on purpose: (1) The code's inverse applies the operations of f in the order of f,
which is wrong for a transposition with exactly one flip (12.6 % of the tiles); here the order is
reversed. (2) The code takes two optimiser steps per batch, the second one with the first one's
gradients still added; here all terms make one step. (3) x is shrunk by torch's antialiased bicubic
interpolation, clamped to 0..1, where the code uses BasicSR's copy of MATLAB's imresize without
clamping: the kernel is the same, the treatment of borders is not. (4) Tiles are square, also where
patches are not, because f transposes some of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from lsfd.distillers.base import DistillationBatch, Distiller, Setting, register
from lsfd.distillers.output import output_loss
from lsfd.errors import LsfdError

OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda images: 1 - images,
    lambda images: images.flip(-1),
    lambda images: images.flip(-2),
    lambda images: images.transpose(-2, -1),
)
"""Colour inversion, horizontal flip, vertical flip, transposition: each is its own inverse."""


def augmented(images: Tensor, picks: Tensor) -> Tensor:
    """Apply to each image the operations that are picked for it, in the order of the list.

    Args:
        images: N x 3 x r x r in 0..1.
        picks: which of the four operations each image takes, bool, 4 x N.
    """
    for operation, picked in zip(OPERATIONS, picks, strict=True):
        images = torch.where(picked.view(-1, 1, 1, 1), operation(images), images)
    return images


def restored(images: Tensor, picks: Tensor) -> Tensor:
    """Undo :func:`augmented`, also on an image of another size: N x 3 x R x R."""
    for operation, picked in zip(reversed(OPERATIONS), picks.flip(0), strict=True):
        images = torch.where(picked.view(-1, 1, 1, 1), operation(images), images)
    return images


def cut_tiles(images: Tensor, side: int, cells: Sequence[int], columns: int) -> Tensor:
    """Return the tiles at some cells of a grid, one after the other along the batch.

    Args:
        images: B x 3 x H x W.
        side: of a cell in pixels.
        cells: their numbers, row by row from the upper left.
        columns: of the grid.

    Returns:
        (number of cells * B) x 3 x side x side.
    """
    corners = [(cell // columns * side, cell % columns * side) for cell in cells]
    return torch.cat([images[..., y : y + side, x : x + side] for y, x in corners])


def shrunk(images: Tensor, scale: int) -> Tensor:
    """Return images made smaller by antialiased bicubic; their sides are multiples of the scale."""
    size = [side // scale for side in images.shape[-2:]]
    return functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def student_image(batch: DistillationBatch, lq: Tensor) -> Tensor:
    """Return what the student makes of images of the method's own, float32."""
    return batch.student_network(lq)[0].float()


def teacher_images(batch: DistillationBatch, lq: Tensor) -> list[Tensor]:
    """Return what each teacher makes of these images, float32, without gradients."""
    with torch.no_grad():
        return [teacher(lq)[0].float() for teacher in batch.teacher_networks]


def mean_distance(image: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Return the L1 distance of an image to each target, averaged over targets."""
    return torch.stack([functional.l1_loss(image, target) for target in targets]).mean()


@register
class DUKD(Distiller):
    """L1 to the teacher's output on patches, their tiles and their shrunken copies."""

    default_weights: ClassVar = {
        "output": 2.0,
        "zoom_in": 2.0,
        "zoom_out": 2.0,
        "zoom_out_pixel": 10.0,
    }
    paper: ClassVar = "Zhang et al., arXiv 2309.14162"
    year: ClassVar = 2023
    uses_features: ClassVar = False

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, float] | None = None,
        tiles: int = 1,
        probability: float = 0.3,
    ) -> None:
        """Check the options.

        Args:
            setting: the scale.
            weights: weights of the terms ``output``, ``zoom_in``, ``zoom_out`` and
                ``zoom_out_pixel``; what has weight 0 is not computed.
            tiles: how many tiles of each ground truth ``zoom_in`` takes, 1 to scale * scale.
            probability: of each operation of the label consistency; 0: none.

        Raises:
            LsfdError: an option is out of its range, or the scale is 1.
        """
        super().__init__(setting, weights)
        if setting.scale < 2:
            raise LsfdError(f"scale: zooming takes a scale of at least 2, not {setting.scale}")
        if not 1 <= tiles <= setting.scale**2:
            raise LsfdError(
                f"tiles: at scale {setting.scale} there are 1 to {setting.scale**2}, not {tiles}"
            )
        if not 0 <= probability <= 1:
            raise LsfdError(f"probability: must be in 0..1, not {probability}")
        self.tiles = tiles
        self.probability = probability

    def forward(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return the terms whose weight is not 0."""
        terms = {}
        if self.weights["output"] > 0:
            terms["output"] = output_loss(batch)
        if self.weights["zoom_in"] > 0:
            # On the CPU, so that no device has to be waited for.
            cells = torch.randperm(self.setting.scale**2)[: self.tiles].tolist()
            picks = torch.rand(len(OPERATIONS), len(cells) * len(batch.gt)) < self.probability
            terms["zoom_in"] = self.zoom_in(batch, cells, picks.to(batch.gt.device))
        if self.weights["zoom_out"] > 0 or self.weights["zoom_out_pixel"] > 0:
            terms.update(self.zoom_out(batch))
        return terms

    def zoom_in(self, batch: DistillationBatch, cells: Sequence[int], picks: Tensor) -> Tensor:
        """Return the distance on tiles of the ground truth.

        Args:
            batch: the batch.
            cells: numbers of the tiles on the grid of scale x scale cells.
            picks: which operations each tile takes, bool, 4 x (number of cells * B).
        """
        side = min(batch.lq.shape[-2:])
        tiles = cut_tiles(batch.gt, side, cells, self.setting.scale)
        image = restored(student_image(batch, augmented(tiles, picks)), picks)
        return mean_distance(image, teacher_images(batch, tiles))

    def zoom_out(self, batch: DistillationBatch) -> dict[str, Tensor]:
        """Return the terms on shrunken patches whose weight is not 0.

        Raises:
            LsfdError: the patches are too small to be shrunk.
        """
        scale = self.setting.scale
        height, width = batch.lq.shape[-2:]
        if min(height, width) < 2 * scale:
            raise LsfdError(
                f"gt_size: {min(height, width) * scale} is too small to zoom out at scale {scale}; "
                f"raise it to {2 * scale**2} or more, or set the weights of zoom_out and "
                "zoom_out_pixel to 0"
            )
        patches = batch.lq[..., : height // scale * scale, : width // scale * scale]
        small = shrunk(patches, scale)
        image = student_image(batch, small)
        terms = {}
        if self.weights["zoom_out"] > 0:
            terms["zoom_out"] = mean_distance(image, teacher_images(batch, small))
        if self.weights["zoom_out_pixel"] > 0:
            terms["zoom_out_pixel"] = functional.l1_loss(image, patches)
        return terms
