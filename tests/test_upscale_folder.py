from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
import pytest
from conftest import STUDENT
from numpy.typing import NDArray

from lsfd.cli import main
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.raster import Raster
from lsfd.inference import folder
from lsfd.inference.folder import upscale_path
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student
from lsfd.shard import Shard


class Doubler:
    """Repeats pixels."""

    scale = 2
    at_once = 1

    def expect(self, images: int) -> None:
        pass

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
    with pytest.raises(LsfdError, match=r"the folder .*notes\.txt cannot be written"):
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


def test_shares_make_together_what_one_process_makes(source: Path, tmp_path: Path) -> None:
    for number in range(3, 8):
        write_image(source / "deep" / f"{number}.png", picture(number))
    whole = upscale_path(source, tmp_path / "whole", Doubler())
    out = tmp_path / "shares"
    reports = [
        upscale_path(source, out, Doubler(), resume=True, shard=Shard(number, 3))
        for number in (1, 2, 3)
    ]
    done = [{path.relative_to(out) for path in report.done} for report in reports]
    assert sum(map(len, done)) == len(set().union(*done)) == len(whole.done) == 7
    assert max(map(len, done)) - min(map(len, done)) <= 1
    assert files(out) == files(tmp_path / "whole")
    for name in files(out):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    told = [path for report in reports for path in report.skipped]
    assert told == whole.skipped
    assert sum(len(report.failed) for report in reports) == len(whole.failed) == 1
    assert str(reports[1]).startswith("shard 2/3: ")


def test_a_share_goes_on_with_its_own_files(source: Path, tmp_path: Path) -> None:
    for number in range(3, 8):
        write_image(source / f"{number}.png", picture(number))
    shard = Shard(2, 3)
    once = upscale_path(source, tmp_path, Doubler(), shard=shard)
    lost = once.done[0]
    lost.unlink()
    again = upscale_path(source, tmp_path, Doubler(), resume=True, shard=shard)
    assert again.done == [lost] and set(again.kept) == set(once.done[1:])


def test_names_that_clash_are_found_by_every_share(source: Path, tmp_path: Path) -> None:
    write_image(source / "cat.jpg", picture(3))
    for number in (1, 2, 3):
        with pytest.raises(LsfdError, match="would both be written to"):
            upscale_path(source, tmp_path, Doubler(), extension="png", shard=Shard(number, 3))


def test_the_command_takes_a_share(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "deep" / "fake.png").unlink()
    weights = tmp_path / "student.safetensors"
    save_student(weights, build_network(STUDENT), StudentCard(architecture=STUDENT, scale=2))
    command = ["upscale", "-i", str(source), "-w", str(weights), "--device", "cpu"]
    assert main([*command, "-o", str(tmp_path / "whole")]) == 0
    for number in (1, 2):
        share = [*command, "-o", str(tmp_path / "shares"), "--shard", f"{number}/2"]
        assert main(share) == 0
        assert f"shard {number}/2: 1 upscaled" in capsys.readouterr().out
    for name in files(tmp_path / "whole"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "shares" / name).read_bytes() == whole
    assert main([*command, "-o", str(tmp_path / "none"), "--shard", "3/2"]) == 2
    assert "there is no share 3 of 2" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_no_more_images_are_enlarged_at_once_than_may_be(tmp_path: Path) -> None:
    class Counting(Doubler):
        at_once, expected, running, most = 2, 0, 0, 0
        lock = Lock()

        def expect(self, images: int) -> None:
            self.expected = images

        def enlarge(self, source: Raster, target: Raster, progress: Any = None) -> None:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            time.sleep(0.02)
            super().enlarge(source, target)
            with self.lock:
                self.running -= 1

    for number in range(8):
        write_image(tmp_path / "in" / f"{number}.png", picture(number + 1))
    enlarger = Counting()
    report = upscale_path(tmp_path / "in", tmp_path / "out", enlarger)
    assert (enlarger.expected, enlarger.most) == (8, 2)
    assert [path.name for path in report.done] == [f"{number}.png" for number in range(8)]


def test_after_an_interruption_nothing_new_is_begun(tmp_path: Path) -> None:
    class Interrupted(Doubler):
        begun = 0

        def enlarge(self, source: Raster, target: Raster, progress: Any = None) -> None:
            self.begun += 1
            if self.begun == 1:
                raise KeyboardInterrupt
            time.sleep(0.05)
            super().enlarge(source, target)

    for number in range(60):
        write_image(tmp_path / "in" / f"{number:02}.png", picture(1))
    enlarger = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        upscale_path(tmp_path / "in", tmp_path / "out", enlarger)
    assert enlarger.begun < 60
    assert all(name.endswith(".png") for name in files(tmp_path / "out"))


def test_an_interruption_ends_an_image_with_its_next_tile(tmp_path: Path) -> None:
    class Endless(Doubler):
        at_once, tiles = 2, 0
        running = Event()

        def enlarge(
            self, source: Raster, target: Raster, progress: Callable[[float], None] | None = None
        ) -> None:
            assert progress is not None
            if source.shape[0] == 5:
                self.running.wait()
                raise KeyboardInterrupt
            for self.tiles in range(1000):
                self.running.set()
                time.sleep(0.01)
                progress(self.tiles / 1000)

    write_image(tmp_path / "in" / "0.png", picture(1))
    write_image(tmp_path / "in" / "1.png", picture(2))
    enlarger = Endless()
    with pytest.raises(KeyboardInterrupt):
        upscale_path(tmp_path / "in", tmp_path / "out", enlarger)
    assert enlarger.tiles < 900
    assert not files(tmp_path / "out")


def test_one_image_at_a_time_where_results_fill_the_memory(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_IN_FLIGHT", 1)
    (source / "deep" / "fake.png").unlink()
    report = upscale_path(source, tmp_path / "out", Doubler())
    assert len(report.done) == 2
