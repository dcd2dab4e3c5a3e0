"""A shallow, balanced tree over the atoms of a dictionary, for sublinear atom search.

Matching pursuit asks again and again for the atom most similar to a residual r,

    argmax_m |<r, a_m>|,        r in R^d, unit atoms a_1 .. a_M,

which costs M dot products when all are tried. Here the atoms are clustered into a tree of L
levels with b = round(M^(1/L)) children per node: L - 1 levels of centroids, and leaves of about b
atoms. A query descends to the w nodes ("beam") of each level whose centroids c have the largest
|<r, c>|, and tries all atoms of the leaves it ends in: b + (L - 1) w b dot products.

Source: Ayremlou, Goldstein, Veeraraghavan, Baraniuk, "Fast Sublinear Sparse Representation using
Shallow Tree Matching Pursuit", arXiv 1412.0680. The paper states shallow, balanced, hierarchical
trees. The clustering (spherical k-means with capacities, on lines where the sign of a similarity
does not matter), the beam and all numbers are our choice: the search is STMP-style.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError

_KMEANS_ROUNDS = 10
_CHUNK_PAIRS = 1 << 16  # (Query, node) pairs worked on at a time.
_CHUNK_PRODUCTS = 1 << 25  # Similarities held at a time if all queries meet in one node.
_CHUNK_SIMILARITIES = 1 << 22  # Similarities to all atoms held at a time in exhaustive search.


class AtomTree(nn.Module):
    """A balanced tree over unit atoms; its state are two buffers, sized by the arguments alone.

    Built by :meth:`build`; the constructor makes an empty tree to load a state dict into. The
    atoms themselves stay with the caller.

    Attributes:
        order: int64 [M], the atoms' indices, leaf after leaf.
        centroids: [b + b^2 + ... + b^(L-1), d], unit vectors, level after level; the children of
            node i are rows b i .. b i + b - 1 of the next level.
    """

    order: Tensor
    centroids: Tensor

    def __init__(self, num_atoms: int, dim: int, levels: int = 2, signed: bool = False) -> None:
        """Make an empty tree.

        Args:
            num_atoms: M.
            dim: d.
            levels: L, the leaves included; 1 means exhaustive search.
            signed: whether similarity is <r, a> rather than |<r, a>|.

        Raises:
            LsfdError: A number is below 1.
        """
        super().__init__()
        for name, value in (("num_atoms", num_atoms), ("dim", dim), ("levels", levels)):
            if value < 1:
                raise LsfdError(f"{name}: must be at least 1, not {value}")
        self.num_atoms, self.levels, self.signed = num_atoms, levels, signed
        self.branching = max(1, round(num_atoms ** (1 / levels)))
        while self.branching ** (levels - 1) > num_atoms:  # Rounded up: some leaf would be empty.
            self.branching -= 1
        rows = sum(self.branching**level for level in range(1, levels))
        self.register_buffer("order", torch.arange(num_atoms))
        self.register_buffer("centroids", torch.zeros(rows, dim))

    @property
    def num_leaves(self) -> int:
        """Number of leaves: b^(L-1)."""
        return int(self.branching ** (self.levels - 1))

    @property
    def leaf_sizes(self) -> list[int]:
        """Number of atoms in each leaf; they differ by at most one."""
        sizes = [self.num_atoms]
        for _ in range(self.levels - 1):
            sizes = [part for size in sizes for part in _even_parts(size, self.branching)]
        return sizes

    @classmethod
    @torch.no_grad()
    def build(cls, atoms: Tensor, levels: int = 2, seed: int = 0, signed: bool = False) -> AtomTree:
        """Cluster unit atoms into a tree.

        Args:
            atoms: [M, d], each of length 1.
            levels: L, the leaves included.
            seed: seed of the first centroids; equal input gives equal trees.
            signed: cluster and search by <r, a> instead of |<r, a>|.

        Raises:
            LsfdError: ``atoms`` is no non-empty matrix of finite unit vectors.
        """
        if atoms.dim() != 2 or atoms.numel() == 0:
            raise LsfdError(f"atoms: must be a matrix M x d, not of shape {tuple(atoms.shape)}")
        atoms = atoms.detach().float()
        # A comparison that NaN fails, too.
        if not bool(((atoms.norm(dim=1) - 1).abs() < 1e-3).all()):
            raise LsfdError("atoms: must be unit vectors; normalise them first")
        tree = cls(atoms.shape[0], atoms.shape[1], levels, signed).to(atoms.device)
        generator = torch.Generator().manual_seed(seed)
        groups = [tree.order]
        blocks = []
        for _ in range(levels - 1):
            split = [_split(atoms, group, tree.branching, generator, signed) for group in groups]
            groups = [part for parts, _ in split for part in parts]
            blocks += [centroids for _, centroids in split]
        tree.order.copy_(torch.cat(groups))
        if blocks:
            tree.centroids.copy_(torch.cat(blocks))
        return tree

    @torch.no_grad()
    def search(self, queries: Tensor, beam: int = 1) -> Tensor:
        """Return the atoms of the leaves that each query descends to.

        Args:
            queries: [N, d].
            beam: w >= 1, how many nodes of each level are kept; from :attr:`num_leaves` on every
                atom is a candidate.

        Returns:
            int64 [N, w * largest leaf], indices of atoms, leaf after leaf, filled up with -1.
        """
        sizes = torch.tensor(self.leaf_sizes, device=queries.device)
        starts = sizes.cumsum(0) - sizes
        leaves = torch.cat([self._descend(part, beam) for part in self._chunks(queries, beam)])
        within = torch.arange(int(max(self.leaf_sizes)), device=queries.device)
        positions = starts[leaves][..., None] + within
        inside = within < sizes[leaves][..., None]
        candidates = self.order[positions.clamp_(max=self.num_atoms - 1)]
        return torch.where(inside, candidates, -1).flatten(1)

    @torch.no_grad()
    def top(
        self, queries: Tensor, atoms: Tensor, beam: int = 1, count: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return the most similar atoms among those that :meth:`search` would return.

        Queries that end in one leaf share one matrix product, which is many times faster than to
        gather candidates for each.

        Args:
            queries: [N, d].
            atoms: [M, d], as the tree was built from.
            beam: w, as for :meth:`search`.
            count: how many atoms.

        Returns:
            Similarities (|<r, a>|, or <r, a> where ``signed``) and int64 indices of atoms, both
            [N, count], the most similar first; where the leaves hold fewer atoms, the rest is
            -inf and -1.
        """
        return self.top_in_order(queries, atoms[self.order], beam, count)

    @torch.no_grad()
    def top_in_order(
        self, queries: Tensor, ordered: Tensor, beam: int = 1, count: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Do as :meth:`top` does, given ``atoms[order]``: for searches that follow each other."""
        found = []
        for part in self._chunks(queries, beam):
            leaves = self._descend(part, beam)
            sizes = self.leaf_sizes
            found.append(_top_children(part, leaves, ordered, sizes, count, self.signed))
        values, positions = (torch.cat(parts) for parts in zip(*found, strict=True))
        return values, torch.where(positions < 0, -1, self.order[positions])

    def _chunks(self, queries: Tensor, beam: int) -> tuple[Tensor, ...]:
        if beam < 1:
            raise LsfdError(f"beam: must be at least 1, not {beam}")
        pairs = _CHUNK_PAIRS // min(beam, self.num_leaves)
        widest = max(self.branching, *self.leaf_sizes)
        return queries.split(max(1, min(pairs, _CHUNK_PRODUCTS // widest)))

    def _descend(self, queries: Tensor, beam: int) -> Tensor:
        """Return the numbers of the leaves that each query ends in: int64 [N, w]."""
        nodes = torch.zeros(len(queries), 1, dtype=torch.int64, device=queries.device)
        start = 0
        for level in range(1, self.levels):
            count = self.branching**level
            children = self.centroids[start : start + count]
            sizes = [self.branching] * (count // self.branching)
            _, nodes = _top_children(queries, nodes, children, sizes, min(beam, count), self.signed)
            start += count
        return nodes


@torch.no_grad()
def top_atoms(
    queries: Tensor, atoms: Tensor, count: int = 1, signed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the most similar of all atoms: the exhaustive search.

    Args:
        queries: [N, d].
        atoms: [M, d].
        count: how many atoms, at most M.
        signed: whether similarity is <r, a> rather than |<r, a>|.

    Returns:
        Similarities and int64 indices, both [N, count], the most similar first.
    """
    rows = max(1, _CHUNK_SIMILARITIES // len(atoms))
    found = [_top(part @ atoms.T, count, signed) for part in queries.split(rows)]
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, indices


def _top(similarities: Tensor, count: int, signed: bool) -> tuple[Tensor, Tensor]:
    """Return the ``count`` largest of each row (in place: magnitudes) and where they are."""
    if not signed:
        similarities.abs_()
    if count == 1:  # Several times faster than topk.
        return similarities.max(dim=1, keepdim=True)
    return similarities.topk(count, dim=1)


def _top_children(
    queries: Tensor, nodes: Tensor, children: Tensor, sizes: list[int], count: int, signed: bool
) -> tuple[Tensor, Tensor]:
    """Return the children most similar to each query among those of its nodes.

    Args:
        queries: [N, d].
        nodes: int64 [N, w], without repetition in a row.
        children: [sum of sizes, d], node after node.
        sizes: number of children of each node.
        count: how many children.

    Returns:
        Similarities and rows of ``children``, both [N, count], the most similar first, filled up
        with -inf and -1.
    """
    width = nodes.shape[1]
    keep = min(count, max(sizes))
    pairs = nodes.flatten().argsort(stable=True)
    values = queries.new_full((len(pairs), keep), -math.inf)
    rows = nodes.new_full((len(pairs), keep), -1)
    start = begin = 0
    grouped = queries[pairs // width]
    for size, members in zip(sizes, _members(nodes, len(sizes)), strict=True):
        if members:
            block = slice(begin, begin + members)
            similarities = grouped[block] @ children[start : start + size].T
            best, index = _top(similarities, min(keep, size), signed)
            values[block, : best.shape[1]] = best
            rows[block, : best.shape[1]] = index.add_(start)
        start += size
        begin += members
    values = torch.empty_like(values).index_copy_(0, pairs, values).view(-1, width * keep)
    rows = torch.empty_like(rows).index_copy_(0, pairs, rows).view(-1, width * keep)
    missing = count - values.shape[1]
    if missing > 0:
        values = nn.functional.pad(values, (0, missing), value=-math.inf)
        rows = nn.functional.pad(rows, (0, missing), value=-1)
    if width == 1 or values.shape[1] == 1:
        return values[:, :count], rows[:, :count]
    values, best = values.topk(count, dim=1)
    return values, rows.gather(1, best)


def _members(nodes: Tensor, count: int) -> list[int]:
    """Return how many entries of ``nodes`` are 0, 1, .. ``count - 1``.

    On the device ``meta``, where there are no entries to count, an even division stands for them:
    it costs as many multiply-adds as any other.
    """
    if nodes.device.type == "meta":
        return _even_parts(nodes.numel(), count)
    return nodes.flatten().bincount(minlength=count).tolist()


def _even_parts(total: int, parts: int) -> list[int]:
    """Divide ``total`` into numbers that differ by at most one, the larger ones first."""
    quotient, rest = divmod(total, parts)
    return [quotient + 1] * rest + [quotient] * (parts - rest)


def _split(
    atoms: Tensor, group: Tensor, parts: int, generator: torch.Generator, signed: bool
) -> tuple[list[Tensor], Tensor]:
    """Split a node by spherical k-means with capacities.

    Repeats: assign every atom to one of the centroids c_1 .. c_b, none taking more than its
    share (:func:`_assign`); then c_j = the direction of sum_i s_ij a_i over its atoms, where
    s_ij is the sign of <a_i, c_j>, or 1 where ``signed``. Starts from atoms drawn at random.

    Args:
        atoms: [M, d].
        group: int64 [n], the node's atoms.
        parts: b <= n.
        generator: draws the first centroids.
        signed: see :meth:`AtomTree.build`.

    Returns:
        The children's atoms, b index tensors, and the centroids [b, d].
    """
    members = atoms[group]
    chosen = torch.randperm(len(group), generator=generator)[:parts].to(group.device)
    centroids = members[chosen]
    capacities = torch.tensor(_even_parts(len(group), parts), device=group.device)
    for _ in range(_KMEANS_ROUNDS):
        similarities = members @ centroids.T
        labels = _assign(similarities if signed else similarities.abs(), capacities)
        if not signed:
            signs = similarities.gather(1, labels[:, None]).sign()
            aligned = members * torch.where(signs == 0, 1.0, signs)
        else:
            aligned = members
        sums = torch.zeros_like(centroids).index_add_(0, labels, aligned)
        # Atoms that cancel out leave no direction: such a centroid stays where it was.
        lengths = sums.norm(dim=1, keepdim=True)
        centroids = torch.where(lengths > 1e-6, sums / lengths.clamp(min=1e-6), centroids)
    ordered = group[labels.argsort(stable=True)]
    return list(ordered.split(capacities.tolist())), centroids


def _assign(similarities: Tensor, capacities: Tensor) -> Tensor:
    """Assign atoms to clusters of given sizes, similar ones first.

    In rounds: every atom without a cluster asks for the most similar one that has room; a cluster
    takes the most similar of those who ask. Each round fills a cluster or is the last.

    Args:
        similarities: [n, b].
        capacities: int64 [b], which add up to n.

    Returns:
        int64 [n], the cluster of each atom.
    """
    labels = similarities.new_full((len(similarities),), -1, dtype=torch.int64)
    waiting = torch.arange(len(similarities), device=similarities.device)
    room = capacities.clone()
    while len(waiting):
        open_clusters = room.nonzero()[:, 0]
        asked = similarities[waiting][:, open_clusters]
        wish, index = asked.max(dim=1)
        cluster = open_clusters[index]
        # Sort by cluster, then by falling similarity; an atom's place in its cluster's queue.
        queue = wish.argsort(descending=True, stable=True)
        queue = queue[cluster[queue].argsort(stable=True)]
        asking = cluster.bincount(minlength=len(room))
        first = asking.cumsum(0) - asking
        place = torch.arange(len(queue), device=queue.device) - first[cluster[queue]]
        taken = queue[place < room[cluster[queue]]]
        labels[waiting[taken]] = cluster[taken]
        room -= cluster[taken].bincount(minlength=len(room))
        waiting = waiting[labels[waiting] < 0]
    return labels
