"""Greedy sparse codes of many signals at once: matching pursuit and its orthogonal form.

A signal x in R^d is written with k of M unit atoms, x = sum_j c_j a_(m_j) + r. Both pursuits pick
in step j the atom most similar to what is left,

    m_j = argmax_m |<r, a_m>|,

tried exhaustively or looked up in a tree (:class:`lsfd.sparse.tree.AtomTree`), and differ in what
they subtract:

    matching pursuit (Mallat and Zhang 1993):                 r <- r - <r, a> a,  a = a_(m_j)
    orthogonal matching pursuit (Pati, Rezaiifar, Krishnaprasad 1993):
        r <- x - its projection on all atoms picked, c = that projection's coefficients

The orthogonal one adds to an orthonormal basis q_1 .. q_j of the picked atoms by Gram-Schmidt:
r <- r - <r, q_j> q_j; at the end the coefficients solve the triangular system R c = (<x, q_j>)_j,
where R_ij = <q_i, a_(m_j)>. In exact arithmetic that is the least-squares solution on the picked
atoms. An atom that lies in the span of those before it is given the coefficient 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lsfd.errors import LsfdError
from lsfd.sparse.tree import AtomTree, top_atoms

Search = Callable[[Tensor], Tensor]
"""Takes residuals [N, d], returns for each the index of an atom: int64 [N]."""

_DEPENDENT = 1e-4  # A unit atom nearer than this to the span of others adds no direction.


class SparseCode(NamedTuple):
    """Codes of N signals.

    Attributes:
        indices: int64 [N, k], the atoms in the order in which they were picked.
        coefficients: [N, k].
        residual: [N, d], what the atoms leave unexplained.
    """

    indices: Tensor
    coefficients: Tensor
    residual: Tensor


def exhaustive_search(atoms: Tensor) -> Search:
    """Return the search that tries all atoms [M, d]."""
    return lambda residual: top_atoms(residual, atoms)[1][:, 0]


def tree_search(atoms: Tensor, tree: AtomTree, beam: int) -> Search:
    """Return the search in a tree that was built from these atoms [M, d], with a beam."""
    ordered = atoms[tree.order]
    return lambda residual: tree.top_in_order(residual, ordered, beam)[1][:, 0]


@torch.no_grad()
def matching_pursuit(
    signals: Tensor, atoms: Tensor, sparsity: int, search: Search | None = None
) -> SparseCode:
    """Code signals by matching pursuit.

    Args:
        signals: [N, d].
        atoms: [M, d], unit vectors.
        sparsity: k, the number of steps; an atom may be picked twice.
        search: finds the atom of each step; all are tried by default.
    """
    search = _checked(signals, atoms, sparsity, search)
    residual = signals.clone()
    indices, coefficients = [], []
    for _ in range(sparsity):
        index = search(residual)
        picked = atoms[index]
        coefficient = (residual * picked).sum(dim=1, keepdim=True)
        residual -= coefficient * picked
        indices.append(index)
        coefficients.append(coefficient)
    return SparseCode(torch.stack(indices, dim=1), torch.cat(coefficients, dim=1), residual)


@torch.no_grad()
def orthogonal_matching_pursuit(
    signals: Tensor, atoms: Tensor, sparsity: int, search: Search | None = None
) -> SparseCode:
    """Code signals by orthogonal matching pursuit.

    Args:
        signals: [N, d].
        atoms: [M, d], unit vectors.
        sparsity: k, the number of steps, at most d.
        search: finds the atom of each step; all are tried by default.
    """
    search = _checked(signals, atoms, sparsity, search)
    if sparsity > atoms.shape[1]:
        raise LsfdError(
            f"sparsity: {sparsity} atoms of {atoms.shape[1]} numbers are not independent"
        )
    count, dim = signals.shape
    residual = signals.clone()
    basis = signals.new_zeros(count, sparsity, dim)
    triangle = signals.new_zeros(count, sparsity, sparsity)
    projections = signals.new_zeros(count, sparsity, 1)
    indices = []
    for step in range(sparsity):
        index = search(residual)
        direction, overlaps, length = _orthogonalise(atoms[index], basis[:, :step])
        along = (residual * direction).sum(dim=1, keepdim=True)
        residual -= along * direction
        basis[:, step] = direction
        triangle[:, :step, step] = overlaps
        triangle[:, step, step] = length
        projections[:, step] = along
        indices.append(index)
    coefficients = torch.linalg.solve_triangular(triangle, projections, upper=True)
    return SparseCode(torch.stack(indices, dim=1), coefficients[:, :, 0], residual)


def _orthogonalise(picked: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take from unit vectors [N, d] what an orthonormal basis [N, j, d] explains.

    Returns:
        The unit directions left [N, d], 0 where nothing is; <q_i, a> [N, j]; the length of what
        is left [N], 1 where nothing is, so that a triangular system can be solved with it.
    """
    left = picked
    overlaps = basis.new_zeros(len(basis), basis.shape[1], 1)
    for _ in range(2):  # In floating point, once leaves too much.
        more = basis @ left[..., None]
        left = left - (basis.transpose(1, 2) @ more)[..., 0]
        overlaps = overlaps + more
    length = left.norm(dim=1)
    independent = length > _DEPENDENT
    length = torch.where(independent, length, 1.0)
    direction = torch.where(independent[:, None], left / length[:, None], 0.0)
    return direction, overlaps[..., 0], length


def _checked(signals: Tensor, atoms: Tensor, sparsity: int, search: Search | None) -> Search:
    if signals.dim() != 2 or atoms.dim() != 2 or signals.shape[1] != atoms.shape[1]:
        raise LsfdError(
            f"signals: must be N x d and atoms M x d, not {tuple(signals.shape)} and "
            f"{tuple(atoms.shape)}"
        )
    if sparsity < 1:
        raise LsfdError(f"sparsity: must be at least 1, not {sparsity}")
    return exhaustive_search(atoms) if search is None else search
