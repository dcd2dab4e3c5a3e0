"""Pixels in memory or in a temporary file: the same to whoever reads and writes them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lsfd.errors import LsfdError
from lsfd.imaging import raster as raster_module
from lsfd.imaging.raster import Raster


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(raster_module, "IN_MEMORY", 0 if request.param == "file" else 1 << 20)
    return tmp_path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_what_is_written_is_read(folder: Path, dtype: type, bands: int) -> None:
    pixels = np.random.default_rng(bands).integers(0, np.iinfo(dtype).max, (9, 7, bands), dtype)
    raster = Raster((9, 7, bands), dtype, folder)
    for top, left in ((0, 0), (0, 4), (5, 0), (5, 4)):
        raster.write(top, left, pixels[top : top + 5, left : left + 4][: 9 - top, : 7 - left])
    assert np.array_equal(raster.read(0, 9, 0, 7), pixels)
    assert np.array_equal(raster.read(2, 8, 1, 6), pixels[2:8, 1:6])
    image = raster.image()
    assert image.hasalpha() == (bands in (2, 4))
    assert np.array_equal(np.atleast_3d(image.numpy()), pixels)
    again = Raster.from_vips(raster.image(), folder)
    assert np.array_equal(again.read(3, 9, 0, 7), pixels[3:9])
    raster.close()
    again.close()
    assert not list(folder.iterdir())


def test_the_file_has_no_name_and_goes_with_the_raster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(raster_module, "IN_MEMORY", 0)
    raster = Raster((4, 4, 3), np.uint8, tmp_path)
    assert not list(tmp_path.iterdir())  # A process that is killed leaves nothing.
    handle = raster._file.fileno()
    os.fstat(handle)
    del raster
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_folder_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_module, "IN_MEMORY", 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    with pytest.raises(LsfdError, match=r"temporary file in .*absent \(No such file.*TMPDIR"):
        Raster((4, 4, 3), np.uint8, tmp_path)
