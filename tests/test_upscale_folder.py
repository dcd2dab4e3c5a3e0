from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.raster import Raster
from lsfd.inference.folder import upscale_path


class Doubler:
    """Repeats pixels."""

    scale = 2

    def enlarge(
        self, source: Raster, target: Raster, progress: Callable[[float], None] | None = None
    ) -> None:
        height, width, _ = source.shape
        target.write(0, 0, double(source.read(0, height, 0, width)))


def double(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image.repeat(2, 0).repeat(2, 1)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (4 + seed, 6, 3), np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder tree with two images, a text file, and a text file that calls itself an image."""
    folder = tmp_path / "in"
    write_image(folder / "cat.png", picture(1))
    write_image(folder / "deep" / "er" / "dog.bmp", picture(2))
    (folder / "notes.txt").write_text("hello")
    (folder / "deep" / "fake.png").write_text("no image")
    (folder / ".hidden").write_text("")
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_tree_keeps_its_shape(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = upscale_path(source, out, Doubler())
    assert files(out) == {"cat.png", "deep/er/dog.bmp"}
    assert set(report.done) == {out / "cat.png", out / "deep/er/dog.bmp"}
    assert np.array_equal(read_image(out / "cat.png"), double(picture(1)))
    assert np.array_equal(read_image(out / "deep/er/dog.bmp"), double(picture(2)))


def test_files_that_are_no_image_are_named(source: Path, tmp_path: Path) -> None:
    report = upscale_path(source, tmp_path / "out", Doubler())
    assert report.skipped == [source / "notes.txt"]
    assert list(report.failed) == [source / "deep" / "fake.png"]
    counts, skipped, failed = str(report).splitlines()
    assert counts == "2 upscaled, 1 skipped, 1 failed"
    assert skipped == f"  {source / 'notes.txt'}: skipped, not an image"
    assert failed.startswith(f"  {source / 'deep' / 'fake.png'}: failed, ")


def test_an_image_that_cannot_be_upscaled_does_not_stop_the_rest(
    source: Path, tmp_path: Path
) -> None:
    class Picky(Doubler):
        def enlarge(self, source: Raster, target: Raster, progress: Any = None) -> None:
            if source.shape[0] == 5:
                raise LsfdError("five rows are too many")
            super().enlarge(source, target)

    report = upscale_path(source, tmp_path / "out", Picky())
    assert report.failed[source / "cat.png"] == "five rows are too many"
    assert files(tmp_path / "out") == {"deep/er/dog.bmp"}


def test_suffix_and_format(source: Path, tmp_path: Path) -> None:
    upscale_path(source, tmp_path / "out", Doubler(), suffix="_x2")
    assert files(tmp_path / "out") == {"cat_x2.png", "deep/er/dog_x2.bmp"}
    upscale_path(source, tmp_path / "webp", Doubler(), extension="webp")
    assert files(tmp_path / "webp") == {"cat.webp", "deep/er/dog.webp"}
    with pytest.raises(LsfdError, match=r"'pgn' is no image format.*did you mean '\.png'"):
        upscale_path(source, tmp_path / "other", Doubler(), extension="pgn")


def test_one_file(source: Path, tmp_path: Path) -> None:
    upscale_path(source / "cat.png", tmp_path / "big.bmp", Doubler(), suffix="_x2")
    assert np.array_equal(read_image(tmp_path / "big.bmp"), double(picture(1)))
    upscale_path(source / "cat.png", tmp_path / "folder", Doubler(), suffix="_x2")
    assert files(tmp_path / "folder") == {"cat_x2.png"}


def test_existing_outputs_are_overwritten_unless_resumed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_image(out / "cat.png", picture(3))
    report = upscale_path(source, out, Doubler(), resume=True)
    assert report.kept == [out / "cat.png"]
    assert report.done == [out / "deep/er/dog.bmp"]
    assert np.array_equal(read_image(out / "cat.png"), picture(3))
    report = upscale_path(source, out, Doubler())
    assert not report.kept
    assert np.array_equal(read_image(out / "cat.png"), double(picture(1)))


def test_outputs_inside_the_source_are_not_read(source: Path) -> None:
    out = source / "results"
    upscale_path(source, out, Doubler())
    report = upscale_path(source, out, Doubler())
    assert files(out) == {"cat.png", "deep/er/dog.bmp"}
    assert len(report.done) == 2
    assert np.array_equal(read_image(out / "cat.png"), double(picture(1)))


def test_inputs_are_never_replaced(source: Path) -> None:
    before = read_image(source / "cat.png")
    with pytest.raises(LsfdError, match="among the inputs"):
        upscale_path(source, source, Doubler(), suffix="_x2")
    with pytest.raises(LsfdError, match="would replace an input"):
        upscale_path(source / "cat.png", source, Doubler())
    with pytest.raises(LsfdError, match="would replace an input"):
        upscale_path(source / "cat.png", source / "cat.png", Doubler())
    write_image(source / "in" / "in" / "cat.png", picture(4))
    write_image(source / "in" / "cat.png", picture(5))
    with pytest.raises(LsfdError, match="would replace an input"):
        upscale_path(source / "in", source, Doubler())
    assert np.array_equal(read_image(source / "cat.png"), before)


def test_two_inputs_with_one_output_are_refused(source: Path, tmp_path: Path) -> None:
    write_image(source / "cat.bmp", picture(3))
    with pytest.raises(LsfdError, match=r"cat\.bmp and .*cat\.png would both be written"):
        upscale_path(source, tmp_path / "out", Doubler(), extension="png")
    assert not (tmp_path / "out").exists()
    assert len(upscale_path(source, tmp_path / "out", Doubler()).done) == 3


def test_nothing_to_upscale(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match="absent does not exist"):
        upscale_path(tmp_path / "absent", tmp_path / "out", Doubler())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(LsfdError, match=r"no image in .*empty"):
        upscale_path(tmp_path / "empty", tmp_path / "out", Doubler())


def test_outputs_need_a_folder(source: Path, tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"the output folder .*notes\.txt cannot be made"):
        upscale_path(source, source / "notes.txt", Doubler())
    with pytest.raises(LsfdError, match=r"'\.gif' is no image format.*; a folder of that name"):
        upscale_path(source / "cat.png", tmp_path / "cat.gif", Doubler())
    (tmp_path / "photos.v2").mkdir()
    upscale_path(source / "cat.png", tmp_path / "photos.v2", Doubler())
    assert files(tmp_path / "photos.v2") == {"cat.png"}


def test_an_interrupted_write_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        upscale_path(source, tmp_path / "out", Doubler())
    assert files(tmp_path / "out") == set()
