"""Fitting :class:`lsfd.networks.sparse_sr.SparseSR` to pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import unfold

from lsfd.errors import LsfdError
from lsfd.networks.sparse_sr import SparseSR, bicubic, luma
from lsfd.sparse.dictionary import (
    couple_atoms,
    learn_atoms,
    linear_map,
    principal_directions,
)
from lsfd.sparse.tree import AtomTree

ImagePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""LR, h x w x 3, and HR, sh x sw x 3, both RGB."""

_PROJECTION_SAMPLES = 50_000


class PatchPairs(NamedTuple):
    """Corresponding patches.

    Attributes:
        features: [n, F].
        details: [n, (ps)^2], HR luma less the bicubic one.
    """

    features: Tensor
    details: Tensor


@torch.no_grad()
def fit_projection(network: SparseSR, pairs: Sequence[ImagePair], seed: int = 0) -> None:
    """Set V to the principal directions of the images' gradient patches.

    Raises:
        LsfdError: No image is as large as a patch.
    """
    chosen = _choose(network, pairs, _PROJECTION_SAMPLES, seed)
    samples = []
    for (lq, _), places in zip(pairs, chosen, strict=True):
        margin = network.upscale * (network.patch - 1)
        height, width = (network.upscale * side for side in lq.shape[:2])
        gradients = network.gradients(_tensor(lq)).narrow(2, margin, height)
        samples.append(_patches(network, gradients.narrow(3, margin, width))[places])
    directions = principal_directions(torch.cat(samples), len(network.projection))
    network.projection.copy_(directions.view_as(network.projection))


@torch.no_grad()
def sample_patches(
    network: SparseSR, pairs: Sequence[ImagePair], count: int, seed: int = 0
) -> PatchPairs:
    """Draw about ``count`` patches uniformly from all images, none of which crosses a border.

    Raises:
        LsfdError: No image is as large as a patch.
    """
    features, details = [], []
    for (lq, hr), places in zip(pairs, _choose(network, pairs, count, seed), strict=True):
        x = _tensor(lq)
        height, width = lq.shape[:2]
        rest = network.patch - 1
        grid = network.features(x).view(height + rest, width + rest, -1)
        features.append(grid[rest:height, rest:width].flatten(0, 1)[places])
        detail = luma(_tensor(hr) - bicubic(x, network.upscale))
        details.append(_patches(network, detail)[places])
    return PatchPairs(torch.cat(features), torch.cat(details))


@torch.no_grad()
def fit_dictionaries(
    network: SparseSR, patches: PatchPairs, rounds: int = 0, ridge: float = 50.0, seed: int = 0
) -> None:
    """Set the atoms and their tree; V has to be set already.

    Args:
        network: its ``beam`` is used for the codes of the training patches.
        patches: from :func:`sample_patches` of the same network.
        rounds: of k-means for the LR atoms, see :func:`lsfd.sparse.dictionary.learn_atoms`.
        ridge: see :func:`lsfd.sparse.dictionary.couple_atoms`.
        seed: of drawn atoms and the tree.

    Raises:
        LsfdError: There are fewer patches than atoms.
    """
    features, details = patches
    count = len(network.lr_atoms)
    network.lr_atoms.copy_(learn_atoms(features, count, rounds, seed))
    tree = AtomTree.build(network.lr_atoms, network.tree.levels, seed)
    network.tree.load_state_dict(tree.state_dict())
    prior = network.lr_atoms @ linear_map(features, details)
    network.hr_atoms.copy_(couple_atoms(network.code(features), details, prior, ridge))


def _choose(network: SparseSR, pairs: Sequence[ImagePair], count: int, seed: int) -> list[Tensor]:
    """Choose places among the patches within each image, about ``count`` in all."""
    rest = network.patch - 1
    sizes = [max(0, lq.shape[0] - rest) * max(0, lq.shape[1] - rest) for lq, _ in pairs]
    if not sum(sizes):
        raise LsfdError(f"no image has {network.patch} x {network.patch} LR pixels")
    generator = torch.Generator().manual_seed(seed)
    share = min(1.0, count / sum(sizes))
    return [torch.randperm(size, generator=generator)[: round(share * size)] for size in sizes]


def _patches(network: SparseSR, maps: Tensor) -> Tensor:
    """Cut maps 1 x C x sh x sw into patches, one for each LR pixel: [n, C (ps)^2]."""
    side = network.patch * network.upscale
    return unfold(maps, side, stride=network.upscale)[0].T


def _tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
