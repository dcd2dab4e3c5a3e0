"""Pairs of high- and low-resolution images from a folder of anything."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lsfd.data import prepare
from lsfd.data.prepare import PrepareReport, prepare_pairs
from lsfd.errors import LsfdError
from lsfd.imaging.degradation import Degradation, low_resolution
from lsfd.imaging.files import find_images, read_image, write_image
from lsfd.imaging.resize import imresize


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_image(folder / "a.png", picture(50, 67, 1))
    write_image(folder / "trip" / "b.webp", picture(49, 48, 2))
    write_image(folder / "trip" / "c.d.bmp", picture(96, 61, 3))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pairs"


@pytest.mark.skipif(
    "LSFD_DATA" not in os.environ,
    reason="set LSFD_DATA to the folder of real images (see datasets/README.md)",
)
def test_pairs_of_set5_are_those_of_matlab(out):
    data = Path(os.environ["LSFD_DATA"])
    report = prepare_pairs(data / "benchmarks" / "Set5" / "HR", out, workers=1)
    assert report == PrepareReport(made=5, existing=0, not_images=0)
    golden = find_images(data / "golden" / "matlab_bicubic_x4")
    made = out / "LR_bicubic" / "X4"
    assert [path.name for path in find_images(made)] == [path.name for path in golden]
    for path in golden:
        assert np.count_nonzero(read_image(made / path.name) != read_image(path)) == 0


def test_names_and_sizes_of_the_pairs_fit(source, out):
    assert prepare_pairs(source, out, workers=1) == PrepareReport(3, 0, 0)
    sizes = {"a.png": (48, 64), "trip/b.png": (48, 48), "trip/c.d.png": (96, 60)}
    assert set(contents(out)) == {f"HR/{name}" for name in sizes} | {
        f"LR_bicubic/X4/{name}" for name in sizes
    }
    for name, (height, width) in sizes.items():
        assert read_image(out / "HR" / name).shape == (height, width, 3)
        assert read_image(out / "LR_bicubic" / "X4" / name).shape == (height // 4, width // 4, 3)


@pytest.mark.parametrize("scales", [(2,), (3,), (8,), (4, 2, 3), (2, 3, 4, 8)])
def test_each_low_resolution_image_is_made_from_the_high_resolution_one(source, out, scales):
    prepare_pairs(source, out, scales, workers=1)
    for hr in find_images(out / "HR"):
        image = read_image(hr)
        original = read_image(next(source.glob(f"{hr.relative_to(out / 'HR').with_suffix('')}.*")))
        assert np.array_equal(image, original[: image.shape[0], : image.shape[1]])
        for scale in scales:
            lr = read_image(out / "LR_bicubic" / f"X{scale}" / hr.relative_to(out / "HR"))
            assert np.array_equal(lr, imresize(image, Fraction(1, scale)))
            assert [side * scale for side in lr.shape[:2]] == list(image.shape[:2])


def test_processes_make_the_same_files_as_one(source, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert prepare_pairs(source, alone, (2, 4), workers=1) == prepare_pairs(
        source, together, (2, 4), workers=2
    )
    assert contents(alone) == contents(together)


def test_a_second_run_makes_only_what_is_missing(source, out):
    prepare_pairs(source, out, workers=1)
    first = contents(out)
    (out / "HR" / "a.png").unlink()
    (out / "LR_bicubic" / "X4" / "trip" / "b.png").unlink()
    kept = out / "HR" / "trip" / "c.d.png"
    os.utime(kept, ns=(2**62, 2**62))
    assert prepare_pairs(source, out, workers=1) == PrepareReport(made=2, existing=1, not_images=0)
    assert contents(out) == first
    assert kept.stat().st_mtime_ns == 2**62


def test_a_size_is_read_from_the_header_however_large(tmp_path):
    """Pillow, which refuses such images, has no say."""
    path = tmp_path / "large.png"
    write_image(path, np.zeros((3, 5, 3), np.uint8))
    assert prepare._size(path) == (5, 3)
    header = bytearray(path.read_bytes())
    header[16:24] = (20_000).to_bytes(4, "big") + (14_000).to_bytes(4, "big")
    path.write_bytes(header)
    assert prepare._size(path) == (20_000, 14_000)


def test_a_source_that_changed_is_made_again(source, out):
    prepare_pairs(source, out, workers=1)
    changed = picture(40, 40, 9)
    write_image(source / "a.png", changed)
    later = (out / "HR" / "a.png").stat().st_mtime_ns + 10**9
    os.utime(source / "a.png", ns=(later, later))
    assert prepare_pairs(source, out, workers=1) == PrepareReport(made=1, existing=2, not_images=0)
    assert np.array_equal(read_image(out / "HR" / "a.png"), changed)


def test_a_further_scale_crops_the_earlier_pairs_anew(source, out, tmp_path):
    prepare_pairs(source, out, (4,), workers=1)
    # 48 x 48 fits x3 as it is; the other two images have to be cropped again.
    prepare_pairs(source, out, (3, 4), workers=1)
    prepare_pairs(source, tmp_path / "at_once", (3, 4), workers=1)
    assert contents(out) == contents(tmp_path / "at_once")


def test_pairs_of_another_scale_are_not_spoilt(source, out):
    prepare_pairs(source, out, (4,), workers=1)
    before = contents(out)
    with pytest.raises(LsfdError, match="holds pairs for x4"):
        prepare_pairs(source, out, (3,), workers=1)
    assert contents(out) == before


def test_degraded_images_lie_beside_the_bicubic_ones(source, out):
    prepare_pairs(source, out, workers=1)
    before = contents(out)
    given = Degradation(noise=2.5, jpeg=40)
    prepare_pairs(source, out, workers=1, degradation=given)
    after = contents(out)
    new = {name: data for name, data in after.items() if name not in before}
    assert {name: after[name] for name in before} == before
    assert set(new) == {
        f"LR_noise2.5_jpeg40/X4/{name}" for name in ("a.png", "trip/b.png", "trip/c.d.png")
    }
    for name in new:
        hr = read_image(out / "HR" / Path(name).relative_to("LR_noise2.5_jpeg40/X4"))
        assert np.array_equal(read_image(out / name), low_resolution(hr, 4, given))


def test_pairs_of_another_degradation_are_not_spoilt(source, out):
    prepare_pairs(source, out, (4,), workers=1)
    before = contents(out)
    with pytest.raises(LsfdError, match=r"LR_bicubic holds images for the scales \(4,\)"):
        prepare_pairs(source, out, (3, 4), workers=1, degradation=Degradation(noise=5))
    with pytest.raises(LsfdError, match="holds pairs for x4"):
        prepare_pairs(source, out, (3,), workers=1, degradation=Degradation(noise=5))
    assert contents(out) == before


def test_an_image_that_is_too_small_for_its_blur_is_passed_over(source, out, caplog):
    write_image(source / "a.png", picture(16, 60))
    report = prepare_pairs(source, out, workers=1, degradation=Degradation(blur=6))
    assert report == PrepareReport(made=2, existing=0, not_images=1)
    assert "a.png: an image of 60x16 pixels is too small for a blur of 6" in caplog.text


@pytest.mark.parametrize("earlier", [(), (4,)])
def test_an_interrupted_run_leaves_no_pair_that_a_second_one_would_trust(
    source, out, tmp_path, monkeypatch, earlier
):
    def interrupted(path: Path, image: np.ndarray, *, make_folder: bool) -> None:
        if "X4" in path.parts:
            raise KeyboardInterrupt
        write_image(path, image, make_folder=make_folder)

    if earlier:
        prepare_pairs(source, out, earlier, workers=1)
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "write_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_pairs(source, out, (3, 4), workers=1)
    prepare_pairs(source, out, (3, 4), workers=1)
    prepare_pairs(source, tmp_path / "at_once", (3, 4), workers=1)
    assert contents(out) == contents(tmp_path / "at_once")


def test_workers_end_when_the_main_process_is_killed(source, out):
    source_of_many = source.parent / "many"
    for number in range(40):
        write_image(source_of_many / f"{number}.png", picture(400, 400, number))
    command = (
        "from pathlib import Path; from lsfd.data.prepare import prepare_pairs; "
        f"prepare_pairs(Path({str(source_of_many)!r}), Path({str(out)!r}), workers=2)"
    )
    # The workers hold the pipe too: it ends only when all three processes have.
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as process:
        while not out.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        assert process.communicate(timeout=20)[0] == b""


def test_what_is_no_image_is_named_and_passed_over(source, out, caplog):
    (source / "notes.txt").write_text("a text")
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    (source / "empty.jpg").write_bytes(b"")
    write_image(source / "icon.png", picture(3, 16))
    (source / ".hidden.txt").write_text("not looked at")
    with caplog.at_level(logging.WARNING):
        report = prepare_pairs(source, out, workers=1)
    assert report == PrepareReport(made=3, existing=0, not_images=4)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 4
    for name in ("notes.txt", "broken.png", "empty.jpg", "icon.png"):
        assert sum(str(source / name) in message for message in warned) == 1
    assert len(find_images(out / "HR")) == 3


def test_an_output_folder_inside_the_source_is_not_read(source):
    out = source / "pairs"
    for expected in (PrepareReport(3, 0, 0), PrepareReport(0, 3, 0)):
        assert prepare_pairs(source, out, workers=1) == expected
    assert len(find_images(out)) == 6


def test_a_source_inside_the_output_folder_is_refused(source):
    before = contents(source.parent)
    for out in (source, source.parent):
        with pytest.raises(LsfdError, match="choose another output folder"):
            prepare_pairs(source, out, workers=1)
    assert contents(source.parent) == before


def test_two_sources_of_one_name_are_both_named(source, out):
    write_image(source / "a.jpg", picture(32, 32))
    with pytest.raises(LsfdError, match=r"a\.jpg and .*a\.png would both become a\.png"):
        prepare_pairs(source, out, workers=1)
    assert not out.exists()


def test_a_source_without_a_usable_image_is_an_error(tmp_path, out):
    missing = tmp_path / "missing"
    with pytest.raises(LsfdError, match=re.escape(str(missing))):
        prepare_pairs(missing, out)
    missing.mkdir()
    with pytest.raises(LsfdError, match="no image was found"):
        prepare_pairs(missing, out)
    (missing / "a.png").write_text("no image")
    with pytest.raises(LsfdError, match=r"a\.png"):
        prepare_pairs(missing, out)


@pytest.mark.parametrize("scales", [(), (5,), (2, 1)])
def test_scales_that_are_not_offered_are_refused(source, out, scales):
    with pytest.raises(LsfdError, match=r"scales \(2, 3, 4, 8\)"):
        prepare_pairs(source, out, scales)


def test_there_must_be_a_worker(source, out):
    with pytest.raises(LsfdError, match="at least 1, not 0"):
        prepare_pairs(source, out, workers=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_output_that_cannot_be_written_is_an_error(source, out, workers):
    out.mkdir()
    (out / "HR").write_text("a file where the folder should be")
    with pytest.raises(LsfdError, match="cannot be written"):
        prepare_pairs(source, out, workers=workers)
