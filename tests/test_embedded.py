"""The photographs of scikit-image that the first run trains and validates on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsfd.data import embedded
from lsfd.data.embedded import EMBEDDED_TRAIN, EMBEDDED_VAL, write_embedded
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    out = tmp_path_factory.mktemp("embedded")
    write_embedded(out)
    return {
        split: {path.name: read_image(path) for path in sorted((out / split / "HR").iterdir())}
        for split in ("train", "val")
    }


def test_every_photograph_is_written_to_its_split(pictures):
    for split, names in (("train", EMBEDDED_TRAIN), ("val", EMBEDDED_VAL)):
        assert list(pictures[split]) == sorted(f"{Path(name).stem}.png" for name in names)


def test_no_picture_is_in_both_splits(pictures):
    assert not set(EMBEDDED_TRAIN) & set(EMBEDDED_VAL)
    for val in pictures["val"].values():
        assert not any(np.array_equal(val, train) for train in pictures["train"].values())


def test_pictures_are_large_enough_for_patches(pictures):
    for split in pictures.values():
        for image in split.values():
            assert image.dtype == np.uint8 and image.shape[2] == 3
            assert min(image.shape[:2]) >= 256


def test_validation_is_in_colour(pictures):
    for image in pictures["val"].values():
        spread = image.max(axis=2).astype(int) - image.min(axis=2)
        assert spread.mean() > 10


def test_pictures_are_what_scikit_image_shows(pictures):
    from skimage import data

    assert np.array_equal(pictures["val"]["coffee.png"], data.coffee())
    grey = data.camera()
    assert np.array_equal(pictures["train"]["camera.png"], np.dstack([grey] * 3))


def test_a_photograph_that_the_package_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_VAL", ("gone.png",))
    with pytest.raises(LsfdError, match=r"has no gone\.png"):
        write_embedded(tmp_path)
