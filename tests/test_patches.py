"""Patches: aligned, augmented, and a function of seed and number alone."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lsfd.data.pack import build_store
from lsfd.data.patches import PatchDataset, StepSampler, batch_of
from lsfd.data.store import Store
from lsfd.errors import LsfdError
from lsfd.imaging.files import write_image

SCALE = 4
SIZES = [(48, 64), (96, 96), (32, 40)]  # HR heights and widths of the images 0, 1 and 2.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A set in which every HR pixel says where it is, and LR is every fourth pixel of HR.

    Red is the row, green the column, blue the image's number.
    """
    root = tmp_path_factory.mktemp("set")
    for number, (height, width) in enumerate(SIZES):
        rows, columns = np.mgrid[:height, :width]
        hr = np.stack([rows, columns, np.full_like(rows, number)], axis=2).astype(np.uint8)
        write_image(root / "HR" / f"{number}.png", hr)
        write_image(root / "LR" / f"{number}.png", np.ascontiguousarray(hr[::SCALE, ::SCALE]))
    return build_store(root / "store", [root / "HR"], root / "LR", SCALE)


def patches(store: Store, **changes: object) -> PatchDataset:
    settings = {"gt_size": 16, "use_hflip": True, "use_rot": True, "seed": 0}
    return PatchDataset(store, **{**settings, **changes})  # type: ignore[arg-type]


def symmetry(gt: torch.Tensor) -> tuple[bool, bool, bool]:
    """Return whether a patch was flipped left-right, flipped top-bottom, transposed."""
    rows, columns = gt[0].int(), gt[1].int()
    transposed = bool(rows[0, 0] != rows[0, 1])
    if transposed:
        rows, columns = rows.T, columns.T
    return bool(columns[0, 0] > columns[0, 1]), bool(rows[0, 0] > rows[1, 0]), transposed


def upright(patch: torch.Tensor, flips: tuple[bool, bool, bool]) -> np.ndarray:
    """Undo the augmentation; H x W x 3."""
    array = patch.numpy().transpose(1, 2, 0)
    if flips[2]:
        array = array.transpose(1, 0, 2)
    if flips[1]:
        array = array[::-1]
    if flips[0]:
        array = array[:, ::-1]
    return array


def test_shapes_and_types(store: Store) -> None:
    sample = patches(store)[0]
    assert set(sample) == {"lq", "gt"}
    assert sample["gt"].shape == (3, 16, 16) and sample["lq"].shape == (3, 4, 4)
    for tensor in sample.values():
        assert tensor.dtype == torch.uint8 and tensor.permute(1, 2, 0).is_contiguous()


def test_a_batch_holds_the_samples_and_stays_channels_last(store: Store) -> None:
    samples = [patches(store)[number] for number in range(3)]
    batch = batch_of(samples)
    assert set(batch) == {"lq", "gt"}
    for name, images in batch.items():
        assert images.is_contiguous(memory_format=torch.channels_last)
        for sample, image in zip(samples, images, strict=True):
            torch.testing.assert_close(image, sample[name], rtol=0, atol=0)


def test_lq_and_gt_are_the_same_place_of_the_same_image(store: Store) -> None:
    dataset = patches(store)
    for number in range(300):
        sample = dataset[number]
        flips = symmetry(sample["gt"])
        gt, lq = upright(sample["gt"], flips), upright(sample["lq"], flips)
        top, left, image = (int(value) for value in gt[0, 0])
        assert top % SCALE == 0 and left % SCALE == 0
        np.testing.assert_array_equal(gt, store.gt(image)[top : top + 16, left : left + 16])
        top, left = top // SCALE, left // SCALE
        np.testing.assert_array_equal(lq, store.lq(image)[top : top + 4, left : left + 4])


def test_all_eight_symmetries_occur_equally(store: Store) -> None:
    dataset = patches(store)
    counts = Counter(symmetry(dataset[number]["gt"]) for number in range(1600))
    assert len(counts) == 8
    assert all(140 < count < 260 for count in counts.values())  # 200 each, +-4.5 sigma.


def test_switches_turn_augmentations_off(store: Store) -> None:
    def seen(**switches: bool) -> set[tuple[bool, bool, bool]]:
        dataset = patches(store, **switches)
        return {symmetry(dataset[number]["gt"]) for number in range(100)}

    assert seen(use_hflip=False, use_rot=False) == {(False, False, False)}
    assert seen(use_hflip=True, use_rot=False) == {(h, False, False) for h in (False, True)}
    assert len(seen(use_hflip=False, use_rot=True)) == 4
    assert not any(hflip for hflip, _, _ in seen(use_hflip=False, use_rot=True))


def test_images_by_area_and_positions_evenly(store: Store) -> None:
    dataset = patches(store, use_hflip=False, use_rot=False)
    count = 4000
    corners = [tuple(dataset[number]["gt"][:, 0, 0].tolist()) for number in range(count)]
    areas = np.array([height * width for height, width in SIZES])
    drawn = np.bincount([image for _, _, image in corners], minlength=3)
    expected = areas / areas.sum() * count
    assert np.abs(drawn - expected).max() < 4.5 * np.sqrt(expected.max())
    # Image 2 has 5 x 7 positions on the LR grid; its first and last are drawn like any other.
    places = Counter((top, left) for top, left, image in corners if image == 2)
    assert set(places) == {(t * SCALE, f * SCALE) for t in range(5) for f in range(7)}


def test_a_patch_may_be_as_large_as_the_image(store: Store) -> None:
    dataset = patches(store, gt_size=32)
    assert dataset[5]["gt"].shape == (3, 32, 32)


def test_a_sample_is_a_function_of_seed_and_number(store: Store) -> None:
    def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[key], two[key]) for key in ("lq", "gt"))

    dataset, again = patches(store), pickle.loads(pickle.dumps(patches(store)))
    order = np.random.default_rng(0).permutation(100)
    shuffled = {int(number): again[int(number)] for number in order}
    assert all(equal(dataset[number], shuffled[number]) for number in range(100))
    other_seed = patches(store, seed=1)
    assert sum(equal(dataset[number], other_seed[number]) for number in range(100)) < 5
    assert sum(equal(dataset[number], dataset[number + 1]) for number in range(100)) < 5
    assert not equal(dataset[2**40], dataset[2**40 + 1])  # Far beyond any real run.


def test_the_series_never_changes(store: Store) -> None:
    # Where these three patches lay when this was written: a run that is resumed with a later
    # version must go on with the same samples.
    dataset = patches(store)
    corners = [dataset[number]["gt"][:, 0, 0].tolist() for number in (0, 1, 10**9)]
    assert corners == [[8, 4, 0], [60, 71, 1], [24, 75, 1]]


def test_loader_gives_the_same_with_and_without_workers(store: Store) -> None:
    def batches(workers: int) -> list[torch.Tensor]:
        sampler = StepSampler(3, start_step=2, total_steps=6)
        loader = DataLoader(patches(store), batch_sampler=sampler, num_workers=workers)
        return [batch["gt"] for batch in loader]

    alone, helped = batches(0), batches(2)
    assert len(alone) == 4
    assert all(torch.equal(one, two) for one, two in zip(alone, helped, strict=True))


def test_too_small_images_are_named(store: Store) -> None:
    with pytest.raises(
        LsfdError, match=r"HR/2\.png is 40x32 pixels.*36x36.*gt_size or set .*skip_small: true"
    ):
        patches(store, gt_size=36)


@pytest.mark.parametrize("size", [0, -4, 18])
def test_impossible_sizes_are_refused(store: Store, size: int) -> None:
    with pytest.raises(LsfdError, match=rf"gt_size is {size}, .*multiple of the scale 4"):
        patches(store, gt_size=size)


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 6),
    ranks=st.integers(1, 4),
    start=st.integers(0, 9),
    more=st.integers(0, 9),
)
def test_ranks_share_each_step_of_one_large_batch(
    batch: int, ranks: int, start: int, more: int
) -> None:
    total = start + more
    alone = list(StepSampler(batch * ranks, start, total))
    shared = [list(StepSampler(batch, start, total, rank, ranks)) for rank in range(ranks)]
    assert [list(chain(*parts)) for parts in zip(*shared, strict=True)] == alone
    assert len(StepSampler(batch, start, total)) == len(alone) == more
    # One after the other and without a gap, from wherever the run starts.
    first = start * batch * ranks
    assert list(chain(*alone)) == list(range(first, first + more * batch * ranks))


def test_sampler_starts_again_and_ends_past_the_end() -> None:
    sampler = StepSampler(2, 3, 5)
    assert list(sampler) == list(sampler) == [[6, 7], [8, 9]]
    assert list(StepSampler(2, 5, 5)) == list(StepSampler(2, 9, 5)) == []
