"""Tree search for atoms and matching pursuit: what they find, and what it costs."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from lsfd.errors import LsfdError
from lsfd.sparse import tree as tree_module
from lsfd.sparse.dictionary import (
    couple_atoms,
    learn_atoms,
    linear_map,
    principal_directions,
    synthesise,
)
from lsfd.sparse.pursuit import (
    SparseCode,
    matching_pursuit,
    orthogonal_matching_pursuit,
    tree_search,
)
from lsfd.sparse.tree import AtomTree, top_atoms

DIM = 12
PURSUITS = (matching_pursuit, orthogonal_matching_pursuit)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(count: int, dim: int = DIM, seed: int = 0) -> Tensor:
    return normalize(draw(count, dim, seed=seed), dim=1)


def bundles(count: int, size: int) -> Tensor:
    """``count`` random directions, each with ``size`` atoms close to it or to its opposite."""
    centres = unit(count).repeat_interleave(size, dim=0)
    signs = draw(count * size, 1, seed=1).sign()
    return normalize(signs * centres + 0.05 * draw(count * size, DIM, seed=2), dim=1)


def multiply_adds(tree: AtomTree, queries: Tensor, atoms: Tensor, beam: int) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        tree.top(queries, atoms, beam)
    return counter.get_total_flops() // 2


def explained(code: SparseCode, atoms: Tensor) -> Tensor:
    return (code.coefficients[..., None] * atoms[code.indices]).sum(dim=1)


# Trees


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("count", "levels"), [(1, 2), (2, 3), (6, 4), (100, 1), (100, 2), (101, 3), (997, 2), (300, 4)]
)
def test_leaves_share_the_atoms_evenly(count: int, levels: int, signed: bool) -> None:
    tree = AtomTree.build(unit(count), levels, signed=signed)
    assert sorted(tree.order.tolist()) == list(range(count))
    assert sum(tree.leaf_sizes) == count
    assert min(tree.leaf_sizes) >= 1
    assert max(tree.leaf_sizes) - min(tree.leaf_sizes) <= 1
    assert len(tree.leaf_sizes) == tree.num_leaves


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_a_full_beam_is_the_exhaustive_search(levels: int, signed: bool, count: int) -> None:
    atoms, queries = unit(203), draw(60, DIM, seed=1)
    tree = AtomTree.build(atoms, levels, signed=signed)
    similarities, indices = tree.top(queries, atoms, tree.num_leaves, count)
    exact_similarities, exact = top_atoms(queries, atoms, count, signed)
    assert torch.equal(indices, exact)
    torch.testing.assert_close(similarities, exact_similarities)


def test_exhaustive_search_is_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_CHUNK_SIMILARITIES", 700)
    atoms, queries = unit(50), draw(40, DIM, seed=1)
    similarities, indices = top_atoms(queries, atoms)
    expected, index = (queries @ atoms.T).abs().max(dim=1)
    assert torch.equal(indices[:, 0], index)
    torch.testing.assert_close(similarities[:, 0], expected)
    assert torch.equal(top_atoms(queries, atoms, 50, signed=True)[1][:, -1],
                       (queries @ atoms.T).argmin(dim=1))  # fmt: skip


@pytest.mark.parametrize("levels", [2, 3])
def test_top_is_the_best_of_the_candidates(levels: int) -> None:
    atoms, queries = unit(203), draw(60, DIM, seed=1)
    tree = AtomTree.build(atoms, levels)
    candidates = tree.search(queries, 3)
    similarities = (queries[:, None] * atoms[candidates]).sum(dim=2).abs()
    similarities[candidates < 0] = -math.inf
    expected, place = similarities.max(dim=1)
    found, indices = tree.top(queries, atoms, 3)
    torch.testing.assert_close(found[:, 0], expected)
    assert torch.equal(indices, candidates.gather(1, place[:, None]))


@pytest.mark.parametrize(("count", "beam"), [(100, 1), (101, 4), (101, 99)])
def test_candidates_are_whole_leaves(count: int, beam: int) -> None:
    tree = AtomTree.build(unit(count))
    leaf_of = {
        index: leaf
        for leaf, part in enumerate(tree.order.split(tree.leaf_sizes))
        for index in part.tolist()
    }
    leaves = min(beam, tree.num_leaves)
    candidates = tree.search(draw(9, DIM, seed=1), beam)
    assert candidates.shape == (9, leaves * max(tree.leaf_sizes))
    for row in candidates.tolist():
        found = [index for index in row if index >= 0]
        visited = {leaf_of[index] for index in found}
        assert len(set(found)) == len(found)
        assert len(visited) == leaves
        assert len(found) == sum(tree.leaf_sizes[leaf] for leaf in visited)


def test_fewer_candidates_than_asked_for_are_filled_up() -> None:
    atoms = unit(9)  # 3 leaves of 3.
    tree = AtomTree.build(atoms)
    similarities, indices = tree.top(draw(5, DIM, seed=1), atoms, beam=1, count=4)
    assert bool((indices[:, :3] >= 0).all()) and bool((indices[:, 3] == -1).all())
    assert bool(similarities[:, :3].isfinite().all())
    assert bool((similarities[:, 3] == -math.inf).all())


def test_narrow_beams_find_what_is_clustered() -> None:
    atoms = bundles(16, 16)
    queries = atoms + 0.01 * draw(*atoms.shape, seed=3)
    tree = AtomTree.build(atoms)
    found = tree.top(queries, atoms, beam=1)[1]
    exact = top_atoms(queries, atoms)[1]
    assert (found == exact).float().mean() > 0.9


def test_a_wider_beam_never_finds_less() -> None:
    atoms, queries = unit(400), draw(100, DIM, seed=1)
    tree = AtomTree.build(atoms)
    found = [tree.top(queries, atoms, beam)[0] for beam in (1, 2, 5, 20)]
    for narrow, wide in pairwise(found):
        assert bool((wide >= narrow).all())
    assert bool((found[-1] > found[0]).any())


def test_multiply_adds_are_those_of_centroids_and_leaves() -> None:
    atoms, queries = unit(729), draw(10, DIM, seed=1)
    two, three = AtomTree.build(atoms, 2), AtomTree.build(atoms, 3)
    per_query = 10 * DIM
    assert multiply_adds(two, queries, atoms, 4) == per_query * (27 + 4 * 27)
    assert multiply_adds(three, queries, atoms, 4) == per_query * (9 + 4 * 9 + 4 * 9)


def test_multiply_adds_are_known_without_data() -> None:
    atoms, queries = unit(1024), draw(10, DIM, seed=1)
    tree = AtomTree.build(atoms)
    counted = multiply_adds(tree, queries, atoms, 3)
    assert multiply_adds(tree.to("meta"), queries.to("meta"), atoms.to("meta"), 3) == counted


def test_only_an_unsigned_tree_ignores_the_sign() -> None:
    atoms, queries = unit(200), draw(60, DIM, seed=1)
    unsigned = AtomTree.build(atoms)
    assert torch.equal(unsigned.search(queries, 2), unsigned.search(-queries, 2))
    signed = AtomTree.build(atoms, signed=True)
    similarities, indices = signed.top(queries, atoms, 4)
    torch.testing.assert_close(similarities[:, 0], (queries * atoms[indices[:, 0]]).sum(dim=1))
    assert not torch.equal(indices, signed.top(-queries, atoms, 4)[1])


def test_a_state_dict_is_the_whole_tree() -> None:
    atoms, queries = unit(300), draw(40, DIM, seed=1)
    built = AtomTree.build(atoms, 3, signed=True)
    loaded = AtomTree(300, DIM, 3, signed=True)
    loaded.load_state_dict(built.state_dict())
    assert torch.equal(loaded.search(queries, 2), built.search(queries, 2))
    assert not torch.equal(loaded.search(queries, 2), AtomTree(300, DIM, 3).search(queries, 2))


def test_the_seed_decides_the_tree_and_nothing_else_does() -> None:
    atoms = unit(300)
    state = torch.get_rng_state()
    first = AtomTree.build(atoms, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first.order, AtomTree.build(atoms, seed=1).order)
    assert not torch.equal(first.order, AtomTree.build(atoms, seed=2).order)


@pytest.mark.parametrize(("chunk", "size"), [("_CHUNK_PAIRS", 10), ("_CHUNK_PRODUCTS", 40)])
def test_chunks_do_not_show(chunk: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, queries = unit(300), draw(50, DIM, seed=1)
    tree = AtomTree.build(atoms)
    expected = tree.top(queries, atoms, 3, 2), tree.search(queries, 3)
    monkeypatch.setattr(tree_module, chunk, size)
    similarities, indices = tree.top(queries, atoms, 3, 2)
    torch.testing.assert_close(similarities, expected[0][0])
    assert torch.equal(indices, expected[0][1])
    assert torch.equal(tree.search(queries, 3), expected[1])


def test_equal_and_opposite_atoms_are_no_obstacle() -> None:
    atoms = unit(5).repeat(20, 1)
    atoms[::2] *= -1
    tree = AtomTree.build(atoms, 3)
    assert max(tree.leaf_sizes) - min(tree.leaf_sizes) <= 1
    assert bool(tree.centroids.isfinite().all())
    torch.testing.assert_close(tree.centroids.norm(dim=1), torch.ones(len(tree.centroids)))


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda: AtomTree.build(draw(5, 3)), "atoms: must be unit vectors"),
        (lambda: AtomTree.build(torch.full((5, 3), math.nan)), "atoms: must be unit vectors"),
        (lambda: AtomTree.build(torch.empty(0, 3)), "atoms: must be a matrix"),
        (lambda: AtomTree.build(unit(5), levels=0), "levels: must be at least 1, not 0"),
        (lambda: AtomTree.build(unit(5)).search(draw(2, DIM), 0), "beam: must be at least 1"),
        (lambda: matching_pursuit(draw(2, 3), unit(5), 1), "signals: must be N x d"),
        (lambda: matching_pursuit(draw(2, DIM), unit(5), 0), "sparsity: must be at least 1"),
        (lambda: orthogonal_matching_pursuit(draw(2, 3), unit(9, 3), 4), "sparsity: 4 atoms"),
    ],
)
def test_mistakes_get_a_sentence(mistake: object, sentence: str) -> None:
    with pytest.raises(LsfdError, match=f"^{sentence}"):
        mistake()  # type: ignore[operator]


# Pursuits


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_atoms_and_residual_add_up_to_the_signal(pursuit) -> None:
    atoms, signals = unit(80), draw(50, DIM, seed=1)
    code = pursuit(signals, atoms, 4)
    torch.testing.assert_close(explained(code, atoms) + code.residual, signals)


@pytest.mark.parametrize("pursuit", PURSUITS)
@pytest.mark.parametrize("beam", [0, 1])
def test_each_atom_leaves_less(pursuit, beam: int) -> None:
    atoms, signals = unit(80), draw(50, DIM, seed=1)
    search = tree_search(atoms, AtomTree.build(atoms), beam) if beam else None
    norms = [signals.norm(dim=1)]
    norms += [pursuit(signals, atoms, k, search).residual.norm(dim=1) for k in range(1, 7)]
    for before, after in pairwise(norms):
        assert bool((after <= before + 1e-6).all())


@pytest.mark.parametrize("pursuit", PURSUITS)
@pytest.mark.parametrize("levels", [2, 3])
def test_a_full_beam_gives_the_exact_code(pursuit, levels: int) -> None:
    atoms, signals = unit(203), draw(50, DIM, seed=1)
    tree = AtomTree.build(atoms, levels)
    found = pursuit(signals, atoms, 5, tree_search(atoms, tree, tree.num_leaves))
    exact = pursuit(signals, atoms, 5)
    assert torch.equal(found.indices, exact.indices)
    torch.testing.assert_close(found.coefficients, exact.coefficients)


@pytest.mark.parametrize("pursuit", PURSUITS)
@pytest.mark.parametrize("beam", [0, 2])
def test_the_opposite_signal_flips_the_coefficients_only(pursuit, beam: int) -> None:
    atoms, signals = unit(203), draw(50, DIM, seed=1)
    search = tree_search(atoms, AtomTree.build(atoms), beam) if beam else None
    code, opposite = (pursuit(x, atoms, 4, search) for x in (signals, -signals))
    assert torch.equal(opposite.indices, code.indices)
    assert torch.equal(opposite.coefficients, -code.coefficients)


def test_omp_solves_least_squares_on_the_atoms_it_picks() -> None:
    atoms, signals = unit(80), draw(50, DIM, seed=1)
    code = orthogonal_matching_pursuit(signals, atoms, 5)
    system = atoms[code.indices].transpose(1, 2)
    solution = torch.linalg.lstsq(system, signals[..., None]).solution[..., 0]
    torch.testing.assert_close(code.coefficients, solution, rtol=1e-3, atol=1e-4)
    overlaps = (system.transpose(1, 2) @ code.residual[..., None])[..., 0]
    torch.testing.assert_close(overlaps, torch.zeros_like(overlaps), rtol=0, atol=1e-5)


def test_omp_picks_as_its_definition_does() -> None:
    atoms, signals = unit(80).double(), draw(10, DIM, seed=1).double()
    code = orthogonal_matching_pursuit(signals, atoms, 4)
    for signal, indices in zip(signals, code.indices.tolist(), strict=True):
        picked: list[int] = []
        for _ in range(4):
            residual = signal
            if picked:
                system = atoms[picked].T
                residual = signal - system @ torch.linalg.lstsq(system, signal).solution
            picked.append(int((atoms @ residual).abs().argmax()))
        assert indices == picked


def test_mp_subtracts_one_projection_at_a_time() -> None:
    atoms, signals = unit(80), draw(50, DIM, seed=1)
    first, second = (matching_pursuit(signals, atoms, k) for k in (1, 2))
    index = (first.residual @ atoms.T).abs().argmax(dim=1)
    assert torch.equal(second.indices[:, 1], index)
    coefficient = (first.residual * atoms[index]).sum(dim=1)
    torch.testing.assert_close(second.coefficients[:, 1], coefficient)


def test_omp_leaves_no_more_than_mp() -> None:
    atoms, signals = unit(80), draw(50, DIM, seed=1)
    mp, omp = (p(signals, atoms, 5).residual.norm(dim=1) for p in PURSUITS)
    assert omp.mean() < mp.mean()


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_orthonormal_atoms_are_recovered(pursuit) -> None:
    atoms = torch.linalg.qr(draw(DIM, DIM)).Q
    signals = 3.0 * atoms[[0, 4]] - 2.0 * atoms[[7, 1]]
    code = pursuit(signals, atoms, 2)
    assert code.indices.tolist() == [[0, 7], [4, 1]]
    torch.testing.assert_close(code.coefficients, torch.tensor([[3.0, -2.0], [3.0, -2.0]]))


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_nothing_to_explain_is_explained_by_nothing(pursuit) -> None:
    atoms = unit(3).repeat(10, 1)  # The same three atoms again and again.
    signals = torch.stack([torch.zeros(DIM), 2 * atoms[1], draw(DIM, seed=5)])
    code = pursuit(signals, atoms, 6)
    assert bool(code.coefficients.isfinite().all())
    assert bool((code.coefficients[0] == 0).all())
    torch.testing.assert_close(explained(code, atoms)[1], signals[1])
    assert code.coefficients.abs().max() < 10  # Dependent atoms do not blow each other up.


# Dictionaries


def test_coupled_atoms_solve_the_ridge_problem() -> None:
    lr_atoms, features = unit(30), draw(400, DIM, seed=1)
    details, prior = draw(400, 7, seed=2), draw(30, 7, seed=3)
    code = orthogonal_matching_pursuit(features, lr_atoms, 3)
    uses = torch.zeros(400, 30).scatter_(1, code.indices, code.coefficients)
    system = uses.T @ uses + 2.0 * torch.eye(30)
    expected = torch.linalg.solve(system, uses.T @ details + 2.0 * prior)
    found = couple_atoms(code, details, prior, ridge=2.0, iterations=60)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_an_atom_without_users_keeps_its_prior() -> None:
    atoms = torch.cat([unit(20), torch.zeros(1, DIM)])  # The last is never the most similar.
    code = orthogonal_matching_pursuit(draw(100, DIM, seed=1), atoms, 2)
    prior = draw(21, 5, seed=2)
    found = couple_atoms(code, draw(100, 5, seed=3), prior, ridge=1.0)
    torch.testing.assert_close(found[-1], prior[-1])
    assert not torch.allclose(found[0], prior[0])


def test_a_strong_ridge_keeps_the_prior() -> None:
    code = orthogonal_matching_pursuit(draw(100, DIM, seed=1), unit(20), 2)
    prior = draw(20, 5, seed=2)
    found = couple_atoms(code, draw(100, 5, seed=3), prior, ridge=1e8)
    torch.testing.assert_close(found, prior, rtol=1e-4, atol=1e-4)


def test_details_that_were_made_of_atoms_are_made_again() -> None:
    lr_atoms, hr_atoms = unit(30), draw(30, 7, seed=2)
    code = orthogonal_matching_pursuit(draw(400, DIM, seed=1), lr_atoms, 3)
    details = synthesise(code, hr_atoms)
    torch.testing.assert_close(details, explained(code, hr_atoms))
    found = couple_atoms(code, details, torch.zeros(30, 7), ridge=1e-6, iterations=100)
    torch.testing.assert_close(found, hr_atoms, rtol=1e-2, atol=1e-2)


def test_the_linear_map_is_the_best_one() -> None:
    features, true = draw(200, DIM), draw(DIM, 5, seed=1)
    torch.testing.assert_close(linear_map(features, features @ true), true, rtol=1e-3, atol=1e-3)


def test_drawn_atoms_are_features_and_never_flat_ones() -> None:
    features = torch.cat([draw(200, DIM), 1e-3 * draw(100, DIM, seed=1)])
    atoms = learn_atoms(features, 150)
    similarities = atoms @ normalize(features, dim=1).T
    torch.testing.assert_close(similarities.max(dim=1).values, torch.ones(150))
    origins = similarities.argmax(dim=1)
    assert len(origins.unique()) == 150
    assert int(origins.max()) < 200
    with pytest.raises(LsfdError, match=r"^num_atoms: 201 atoms"):
        learn_atoms(features, 201)


def test_kmeans_moves_atoms_to_where_features_are() -> None:
    features = bundles(16, 30) * (1 + draw(480, 1, seed=7).abs())
    drawn, moved = (learn_atoms(features, 16, rounds, seed=1) for rounds in (0, 8))
    left = [
        matching_pursuit(features, atoms, 1).residual.square().sum() for atoms in (drawn, moved)
    ]
    assert left[1] < 0.9 * left[0]
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(16))


def test_principal_directions_hold_most_energy() -> None:
    samples = draw(500, 6) * torch.tensor([1.0, 5.0, 0.1, 3.0, 0.1, 0.1])
    directions = principal_directions(samples, 2)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2))
    kept = (samples @ directions.T).square().sum() / samples.square().sum()
    assert kept > 0.95
    assert int(directions[0].abs().argmax()) == 1
