"""Learning coupled dictionaries from pairs of features f in R^F and details d in R^P.

    LR atoms a_m: features drawn at random, made unit vectors; optionally moved to the direction of
        sum_i +-f_i over the features most similar to them, a few times (spherical k-means)
    HR atoms b_m: min over b of  sum_i |d_i - sum_j c_ij b_(m_ij)|^2 + ridge sum_m |b_m - W a_m|^2
        W = argmin sum_i |d_i - W f_i|^2      (the best linear map: P x F)

where c_ij, m_ij is the sparse code of f_i over the LR atoms. Without the ridge, the least-squares
problem is that of Zeyde, Elad, Protter (2010), who solve it by a pseudo-inverse for a thousand
atoms that K-SVD has learnt (as others describe the paper). Our choice: drawn atoms, as dictionaries
of 100,000 need; the ridge, which pulls atoms that few features use towards the linear map;
conjugate gradients, as the system is M x M and sparse.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lsfd.errors import LsfdError
from lsfd.sparse.pursuit import SparseCode
from lsfd.sparse.tree import top_atoms

_LEAST_NORM = 0.15  # In medians: what is flatter has a direction of little but noise.
_PER_ATOM = 100  # Features for each atom that k-means looks at.
_ROWS = 1 << 14  # Codes worked on at a time.


def principal_directions(samples: Tensor, count: int) -> Tensor:
    """Return the orthonormal directions [count, D] in which samples [n, D] have most energy."""
    _, vectors = torch.linalg.eigh((samples.T @ samples).double())
    return vectors.flip(1)[:, :count].T.to(samples.dtype)


def learn_atoms(features: Tensor, count: int, rounds: int = 0, seed: int = 0) -> Tensor:
    """Choose LR atoms.

    Args:
        features: [n, F].
        count: M.
        rounds: of k-means; 0 leaves the features that were drawn.
        seed: of what is drawn.

    Returns:
        [M, F], unit vectors.

    Raises:
        LsfdError: There are fewer features that are not almost zero.
    """
    norms = features.norm(dim=1)
    usable = (norms > _LEAST_NORM * norms.median()).nonzero()[:, 0]
    if len(usable) < count:
        raise LsfdError(
            f"num_atoms: {count} atoms need as many different patches, but there are {len(usable)}"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = usable[torch.randperm(len(usable), generator=generator)[: _PER_ATOM * count]]
    sample = features[drawn]
    atoms = normalize(sample[:count], dim=1)
    for _ in range(rounds):
        nearest = top_atoms(sample, atoms)[1][:, 0]
        signs = (sample * atoms[nearest]).sum(dim=1, keepdim=True).sign()
        sums = torch.zeros_like(atoms).index_add_(0, nearest, signs * sample)
        used = sums.norm(dim=1, keepdim=True) > 0
        atoms = torch.where(used, normalize(sums, dim=1), atoms)
    return atoms


def linear_map(features: Tensor, details: Tensor) -> Tensor:
    """Return W^T, [F, P]: the best linear map from features [n, F] to details [n, P]."""
    return torch.linalg.lstsq(features.T @ features, features.T @ details).solution


def couple_atoms(
    code: SparseCode, details: Tensor, prior: Tensor, ridge: float, iterations: int = 10
) -> Tensor:
    """Return the HR atoms that reproduce details from the codes of their features.

    Args:
        code: of n features.
        details: [n, P].
        prior: [M, P], what atoms without users are.
        ridge: how strongly the others are pulled there; to be compared with the sum of the
            squared coefficients of an atom's users.
        iterations: of conjugate gradients, started from ``prior``.

    Returns:
        [M, P].
    """

    def normal(atoms: Tensor) -> Tensor:
        return _gather(code, len(prior), synthesise(code, atoms)) + ridge * atoms

    found = prior.clone()
    residual = _gather(code, len(prior), details) + ridge * prior - normal(found)
    direction = residual.clone()
    energy = residual.square().sum(dim=0)
    for _ in range(iterations):  # Every column is a system of its own, with the same matrix.
        image = normal(direction)
        step = energy / (direction * image).sum(dim=0).clamp(min=1e-20)
        found += step * direction
        residual -= step * image
        before, energy = energy, residual.square().sum(dim=0)
        direction = residual + energy / before.clamp(min=1e-20) * direction
    return found


def synthesise(code: SparseCode, atoms: Tensor) -> Tensor:
    """Return sum_j c_ij b_(m_ij) for every code i: [n, P]."""
    parts = zip(code.coefficients.split(_ROWS), code.indices.split(_ROWS), strict=True)
    return torch.cat([(values[:, None] @ atoms[indices])[:, 0] for values, indices in parts])


def _gather(code: SparseCode, count: int, details: Tensor) -> Tensor:
    """Return sum_ij c_ij d_i over all uses of each atom: [M, P]; the adjoint of synthesise."""
    sums = details.new_zeros(count, details.shape[1])
    for values, indices in zip(code.coefficients.T, code.indices.T, strict=True):
        for rows in torch.arange(len(details)).split(_ROWS):
            sums.index_add_(0, indices[rows], values[rows, None] * details[rows])
    return sums
