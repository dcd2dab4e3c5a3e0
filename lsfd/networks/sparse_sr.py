"""Super-resolution by sparse codes over coupled dictionaries: a baseline that is no network.

Zeyde, Elad, Protter, "On Single Image Scale-Up Using Sparse-Representations" (2010), after Yang,
Wright, Huang, Ma (2010). With s the scale, p the patch's side in LR pixels, u the bicubic
enlargement of the image x: N x 3 x h x w, and Y(.) its luma:

    g = the horizontal and vertical first and second differences of Y(u) over s pixels either way
    f = V (patch of g, 4 (ps)^2 numbers)           in R^F, one for each LR pixel; V: F x 4 (ps)^2
    f ~ sum_j c_j a_(m_j),   j = 1..k              k atoms found by orthogonal matching pursuit
    d = sum_j c_j b_(m_j)                          in R^((ps)^2), the patch's detail
    y = u + (255 / 219) * mean over the p^2 patches that cover a pixel of d

a_1 .. a_M: unit atoms in R^F; b_1 .. b_M: the HR atoms coupled to them. Luma alone is improved:
adding 255/219 d to red, green and blue adds d to BT.601's luma and leaves the chroma bicubic.

Zeyde's are (as others describe the paper, which was not at hand) the gradient features, their
reduction by principal components (V), the pursuit, the coupled dictionaries, and detail patches
that are averaged where they overlap. Our choice: the span of the differences; a fixed F; patches
that overlap in all but one LR pixel everywhere, borders included (the image is mirrored there); the
atoms may be looked up in a shallow tree (STMP-style, :mod:`lsfd.sparse.tree`). a, b and V are
fitted by :mod:`lsfd.networks.sparse_fit`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import lsfd.compat  # noqa: F401

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional

from lsfd.errors import LsfdError
from lsfd.sparse.dictionary import synthesise
from lsfd.sparse.pursuit import (
    SparseCode,
    exhaustive_search,
    orthogonal_matching_pursuit,
    tree_search,
)
from lsfd.sparse.tree import AtomTree

_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_RGB_PER_LUMA = 255 / 219
_MARGIN = 2  # LR pixels that bicubic looks beyond the one it enlarges.


def bicubic(image: Tensor, scale: int, border: int = 0) -> Tensor:
    """Enlarge N x C x h x w as MATLAB's ``imresize`` does, but for its rounding to 8 bits.

    Args:
        image: N x C x h x w.
        scale: s.
        border: LR pixels beyond each edge to enlarge too; the image is mirrored there.

    Returns:
        N x C x s (h + 2 border) x s (w + 2 border).
    """
    for dim in (2, 3):
        size = image.shape[dim]
        around = torch.arange(-border - _MARGIN, size + border + _MARGIN, device=image.device)
        around = around % (2 * size)
        image = image.index_select(dim, torch.minimum(around, 2 * size - 1 - around))
    # With antialias, which changes nothing when enlarging, torch's kernel is MATLAB's (a = -0.5).
    large = functional.interpolate(image, scale_factor=scale, mode="bicubic", antialias=True)
    cut = _MARGIN * scale
    return large[:, :, cut:-cut, cut:-cut]


def luma(image: Tensor) -> Tensor:
    """Return BT.601's luma without its offset of 16/255: N x 3 x h x w -> N x 1 x h x w."""
    return functional.conv2d(image, image.new_tensor(_LUMA).view(1, 3, 1, 1))


@ARCH_REGISTRY.register()
class SparseSR(nn.Module):
    """Sparse-coding super-resolution (Zeyde et al. 2010) with tree search for the atoms.

    Its dictionaries are parameters that are counted but not trained (they need no gradient);
    filled with zeros until they are fitted or loaded, when it is bicubic enlargement.

    Attributes:
        projection: V, [F, 4, ps, ps].
        lr_atoms: [M, F], unit vectors.
        hr_atoms: [M, (ps)^2].
        tree: the tree over ``lr_atoms``.
    """

    filters: Tensor

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        upscale: int = 4,
        num_atoms: int = 1024,
        num_feat: int = 32,
        patch: int = 3,
        sparsity: int = 3,
        beam: int = 4,
        levels: int = 2,
    ) -> None:
        """Make a network without detail: its dictionaries are zero.

        Args:
            num_in_ch: 3.
            num_out_ch: 3.
            upscale: s.
            num_atoms: M.
            num_feat: F, at most 4 (patch * upscale)^2.
            patch: p, the side of a patch in LR pixels.
            sparsity: k, the atoms of a code.
            beam: nodes that the search keeps at each level of the tree; from the number of its
                leaves on the search is exhaustive.
            levels: levels of the tree, the leaves included; 1 is exhaustive search.
        """
        super().__init__()
        if (num_in_ch, num_out_ch) != (3, 3):
            raise LsfdError(f"num_in_ch: images are RGB, not {num_in_ch} -> {num_out_ch} channels")
        side = patch * upscale
        if num_feat > 4 * side**2:
            raise LsfdError(f"num_feat: a patch has {4 * side**2} numbers, not {num_feat}")
        if sparsity > min(num_feat, num_atoms):
            raise LsfdError(
                f"sparsity: {sparsity} atoms are more than num_feat ({num_feat}) or num_atoms "
                f"({num_atoms}) allow"
            )
        self.upscale, self.patch, self.sparsity, self.beam = upscale, patch, sparsity, beam
        self.projection = _frozen(num_feat, 4, side, side)
        self.lr_atoms = _frozen(num_atoms, num_feat)
        self.hr_atoms = _frozen(num_atoms, side**2)
        self.tree = AtomTree(num_atoms, num_feat, levels)
        self.register_buffer("filters", _difference_filters(upscale), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge RGB images in 0..1: N x 3 x h x w -> N x 3 x sh x sw, in float32.

        Raises:
            LsfdError: It is to be trained: in training mode, with gradients.
        """
        if self.training and torch.is_grad_enabled():
            raise LsfdError("network_g.type: SparseSR is fitted (scripts/stmp.py), not trained")
        with torch.no_grad(), _without_autocast(x.device.type):  # Atoms are told apart in float32.
            x = x.float()
            code = self.code(self.features(x))
            return bicubic(x, self.upscale) + _RGB_PER_LUMA * self._detail(code, x.shape)

    def gradients(self, x: Tensor) -> Tensor:
        """Return g with p - 1 more LR pixels on each side: N x 4 x s (h + 2p - 2) x ..."""
        return functional.conv2d(luma(bicubic(x, self.upscale, self.patch)), self.filters)

    def features(self, x: Tensor) -> Tensor:
        """Return f of every patch that covers a pixel: [N * L, F], L = (h + p - 1)(w + p - 1)."""
        found = functional.conv2d(self.gradients(x), self.projection, stride=self.upscale)
        return found.permute(0, 2, 3, 1).flatten(0, 2)

    def code(self, features: Tensor) -> SparseCode:
        """Return the sparse codes of features [L, F]."""
        if self.beam >= self.tree.num_leaves:
            search = exhaustive_search(self.lr_atoms)
        else:
            search = tree_search(self.lr_atoms, self.tree, self.beam)
        return orthogonal_matching_pursuit(features, self.lr_atoms, self.sparsity, search)

    def _detail(self, code: SparseCode, shape: torch.Size) -> Tensor:
        """Average the detail patches of images of a shape N x 3 x h x w: N x 1 x sh x sw."""
        count, _, height, width = shape
        step, side, around = self.upscale, self.patch * self.upscale, 2 * (self.patch - 1)
        patches = synthesise(code, self.hr_atoms).view(count, -1, side**2).transpose(1, 2)
        size = (step * (height + around), step * (width + around))
        total = functional.fold(patches, size, side, stride=step)
        cut = step * (self.patch - 1)
        return total[:, :, cut : size[0] - cut, cut : size[1] - cut] / self.patch**2


def _without_autocast(device: str) -> AbstractContextManager[object]:
    # The device meta, on which costs are counted, knows no autocast.
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


def _frozen(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)


def _difference_filters(distance: int) -> Tensor:
    """Return first and second differences, across and down: [4, 1, 2s + 1, 2s + 1]."""
    filters = torch.zeros(4, 1, 2 * distance + 1, 2 * distance + 1)
    ends, middle = (0, 2 * distance), distance
    for across in (True, False):
        first, second = filters[0 if across else 1, 0], filters[2 if across else 3, 0]
        if not across:
            first, second = first.T, second.T
        first[middle, ends[0]], first[middle, ends[1]] = -0.5, 0.5
        second[middle, ends[0]], second[middle, middle], second[middle, ends[1]] = 0.5, -1.0, 0.5
    return filters
