"""The packed image store: what it holds, when it is built again, and what it refuses."""

from __future__ import annotations

import errno
import itertools
import logging
import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from lsfd.cli import main
from lsfd.data import pack
from lsfd.data.pack import build_store, ensure_store, verify_store
from lsfd.data.pairs import find_pairs
from lsfd.data.store import open_store
from lsfd.errors import LsfdError
from lsfd.imaging.files import write_image
from lsfd.imaging.resize import downscale, modcrop

SIZES = {"b": (34, 50), "a": (48, 41), "sub/c": (20, 64)}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    root = tmp_path / "HR"
    for name, size in SIZES.items():
        write_image(root / f"{name}.png", noise(*size))
    return root


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_holds_the_cropped_images_and_their_bicubic(tmp_path: Path, hr: Path) -> None:
    store = build_store(tmp_path / "store", [hr], None, 4)
    assert len(store) == 3
    assert store.names == ["HR/a.png", "HR/b.png", "HR/sub/c.png"]
    assert store.shapes == [(48, 40), (32, 48), (20, 64)]
    assert (store.scale, store.index.lq_origin, store.index.left_out) == (4, "MATLAB bicubic", 0)
    for index, name in enumerate(["a", "b", "sub/c"]):
        expected = modcrop(noise(*SIZES[name]), 4)
        np.testing.assert_array_equal(store.gt(index), expected)
        np.testing.assert_array_equal(store.lq(index), downscale(expected, 4))
    np.testing.assert_array_equal(store.gt(-1), store.gt(2))
    np.testing.assert_array_equal(store.lq(-1), store.lq(2))


def test_views_are_read_only_and_mapped(tmp_path: Path, hr: Path) -> None:
    store = build_store(tmp_path / "store", [hr], None, 4)
    with pytest.raises(ValueError, match="read-only"):
        store.gt(0)[0, 0, 0] = 1
    assert np.shares_memory(store.gt(1), store.gt(1))
    assert not store.lq(1).flags.owndata


def test_several_roots_are_packed_in_order(tmp_path: Path, hr: Path) -> None:
    write_image(tmp_path / "More" / "a.bmp", noise(16, 16))
    store = build_store(tmp_path / "store", [tmp_path / "More", hr], None, 4)
    assert store.names == ["More/a.bmp", "HR/a.png", "HR/b.png", "HR/sub/c.png"]


@pytest.mark.parametrize("suffix", ["", "x4"])
def test_lr_files_are_read(tmp_path: Path, hr: Path, suffix: str) -> None:
    lr = tmp_path / "LR"
    for name, (height, width) in SIZES.items():
        write_image(lr / f"{name}{suffix}.bmp", noise(height // 4, width // 4))
    store = build_store(tmp_path / "store", [hr], lr, 4)
    assert store.index.lq_origin == "files"
    for index, name in enumerate(["a", "b", "sub/c"]):
        height, width = SIZES[name]
        np.testing.assert_array_equal(store.lq(index), noise(height // 4, width // 4))


def test_unfitting_lr_files_are_named(tmp_path: Path, hr: Path) -> None:
    lr = tmp_path / "LR"
    for name, (height, width) in SIZES.items():
        write_image(lr / f"{name}.png", noise(height // 4, width // 4))
    write_image(lr / "b.png", noise(8, 13))
    with pytest.raises(LsfdError, match=r"LR/b\.png is 13x8 .*HR/b\.png \(48x32 .* must be 12x8"):
        build_store(tmp_path / "store", [hr], lr, 4)
    (lr / "b.png").unlink()
    with pytest.raises(LsfdError, match=r"no LR image for .*HR/b\.png: .*LR has neither b nor bx4"):
        build_store(tmp_path / "store", [hr], lr, 4)
    write_image(lr / "b.png", noise(8, 12))
    with pytest.raises(LsfdError, match=r"LR/a\.png would be the LR image of both"):
        build_store(tmp_path / "store", [hr, hr], lr, 4)
    assert contents(tmp_path) <= {"HR", "LR", ".store.lock"}


def test_small_images_are_left_out_and_counted(tmp_path: Path, hr: Path) -> None:
    store = build_store(tmp_path / "store", [hr], None, 4, min_size=32)
    assert store.names == ["HR/a.png", "HR/b.png"]
    assert store.index.left_out == 1
    with pytest.raises(LsfdError, match=r"all 3 images have a side below 64 pixels"):
        build_store(tmp_path / "store", [hr], None, 4, min_size=64)
    assert open_store(tmp_path / "store").names == store.names  # The old one is untouched.


def test_bad_sources_are_named_and_leave_nothing(tmp_path: Path, hr: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(LsfdError, match="Nowhere does not exist"):
        build_store(cache / "store", [tmp_path / "Nowhere"], None, 4)
    (tmp_path / "Empty").mkdir()
    with pytest.raises(LsfdError, match=r"no image in .*Empty"):
        build_store(cache / "store", [tmp_path / "Empty"], None, 4)
    write_image(hr / "d.png", noise(3, 9))
    with pytest.raises(LsfdError, match=r"d\.png has a side below 4"):
        build_store(cache / "store", [hr], None, 4)
    (hr / "d.png").write_bytes(b"no image")
    with pytest.raises(LsfdError, match=r"d\.png is not an image"):
        build_store(cache / "store", [hr], None, 4)
    assert contents(cache) <= {".store.lock"}


def test_pickles_small_and_opens_again(tmp_path: Path, hr: Path) -> None:
    store = build_store(tmp_path / "store", [hr], None, 4)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).gt(2), store.gt(2))
    write_image(hr / "b.png", 255 - noise(*SIZES["b"]))
    build_store(tmp_path / "store", [hr], None, 4)
    with pytest.raises(LsfdError, match="rebuilt while in use"):
        pickle.loads(pickled)


def test_ensure_builds_once_and_again_when_a_file_changes(
    tmp_path: Path, hr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[Path] = []
    build = pack._build

    def counted(folder: Path, *arguments: object) -> None:
        builds.append(folder)
        build(folder, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pack, "_build", counted)
    cache = tmp_path / "cache"
    first = ensure_store(cache, [hr], None, 4)
    monkeypatch.chdir(tmp_path)
    assert ensure_store(cache, [Path("HR")], None, 4).folder == first.folder
    assert len(builds) == 1
    other_scale = ensure_store(cache, [hr], None, 2)
    assert other_scale.folder != first.folder and len(builds) == 2

    status = (hr / "b.png").stat()
    os.utime(hr / "b.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = ensure_store(cache, [hr], None, 4)
    assert len(builds) == 3
    assert touched.fingerprint == first.fingerprint  # Only the time changed, not the content.
    write_image(hr / "b.png", 255 - noise(*SIZES["b"]))
    changed = ensure_store(cache, [hr], None, 4)
    assert len(builds) == 4 and changed.fingerprint != first.fingerprint
    np.testing.assert_array_equal(changed.gt(1), 255 - noise(*SIZES["b"])[:32, :48])


def test_fingerprint_is_the_same_anywhere(tmp_path: Path, hr: Path) -> None:
    shutil.copytree(hr, tmp_path / "elsewhere" / "HR")
    here = build_store(tmp_path / "one", [hr], None, 4)
    there = build_store(tmp_path / "two", [tmp_path / "elsewhere" / "HR"], None, 4)
    assert here.fingerprint == there.fingerprint
    assert build_store(tmp_path / "three", [hr], None, 2).fingerprint != here.fingerprint


def test_damaged_stores_are_refused_and_built_again(tmp_path: Path, hr: Path) -> None:
    folder = tmp_path / "store"
    with pytest.raises(LsfdError, match="store is not a usable image store"):
        open_store(folder)
    for damage in ("gt.bin", "lq.bin", "index.json"):
        build_store(folder, [hr], None, 4)
        (folder / damage).write_bytes((folder / damage).read_bytes()[:-3])
        with pytest.raises(LsfdError, match="delete the folder"):
            open_store(folder)
        np.testing.assert_array_equal(build_store(folder, [hr], None, 4).gt(2), noise(20, 64))
    index = (folder / "index.json").read_text()
    (folder / "index.json").write_text(index.replace('"version": 1', '"version": 99'))
    with pytest.raises(LsfdError, match="version 99"):
        open_store(folder)


def test_leftovers_of_a_killed_build_do_not_disturb(tmp_path: Path, hr: Path) -> None:
    (tmp_path / ".store.new").mkdir()
    (tmp_path / ".store.new" / "gt.bin").write_bytes(b"half")
    (tmp_path / ".store.lock").touch()
    assert len(build_store(tmp_path / "store", [hr], None, 4)) == 3
    assert contents(tmp_path) - {".store.lock"} == {"HR", "store"}


def _build_slowly(folder: Path, hr: Path, started: Path) -> None:
    """Build in a child process, saying so in a file; slow enough for another one to meet it."""
    build = pack._build

    def slow(*arguments: object) -> None:
        with started.open("a") as file:
            file.write("build\n")
        time.sleep(1)
        build(*arguments)  # type: ignore[arg-type]

    pack._build = slow  # type: ignore[assignment]
    assert len(build_store(folder, [hr], None, 4)) == 3


def test_of_two_processes_one_builds_and_both_use_it(tmp_path: Path, hr: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = tmp_path / "started.txt"
    arguments = (tmp_path / "store", hr, started)
    children = [context.Process(target=_build_slowly, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert started.read_text() == "build\n"


def test_streams_with_few_images_ahead(
    tmp_path: Path, hr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reading must not run away from writing, or a set larger than memory would not fit.
    for number in range(40):
        write_image(hr / f"n{number:02}.png", noise(8, 8))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    reads = []
    read = pack.ImagePair.read

    def counted(pair: pack.ImagePair, scale: int) -> object:
        reads.append(pair.name)
        return read(pair, scale)

    monkeypatch.setattr(pack.ImagePair, "read", counted)
    pairs = pack.find_pairs([hr], None, 4)
    for written, _ in enumerate(pack._read_ahead(pairs, 4)):
        assert len(reads) <= written + 1 + 2 * 2
    assert written + 1 == len(reads) == 43


def test_a_store_that_nobody_may_write_to_is_read(
    tmp_path: Path, hr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ensure_store(tmp_path / "cache", [hr], None, 4)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    # Permissions would not stop a test that runs as root.
    for name in ("mkdir", "rename", "unlink", "write_text", "touch"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(pack, "locked", refuse)
    assert ensure_store(tmp_path / "cache", [hr], None, 4).fingerprint == written.fingerprint
    with pytest.raises(
        LsfdError, match=r"the image store .* cannot be written: Read-only file system"
    ):
        ensure_store(tmp_path / "cache", [hr], None, 2)


@pytest.mark.parametrize("file", ["gt.bin", "lq.bin", "index.json"])
def test_a_check_finds_any_change(tmp_path: Path, hr: Path, file: str) -> None:
    folder = tmp_path / "store"
    fingerprint = build_store(folder, [hr], None, 4).fingerprint
    assert verify_store(folder).fingerprint == fingerprint
    content = bytearray((folder / file).read_bytes())
    place = content.index(b"HR/b") if file == "index.json" else len(content) // 2
    content[place] ^= 1
    (folder / file).write_bytes(content)
    if file == "index.json":  # It has a digest of its own.
        with pytest.raises(LsfdError, match="was changed"):
            open_store(folder)
        return
    assert len(open_store(folder)) == 3  # Opening reads no pixel.
    with pytest.raises(LsfdError, match=r"store is not what was packed: .*; delete the folder"):
        verify_store(folder)


def test_damaged_pixels_are_not_kept_when_images_were_touched(tmp_path: Path, hr: Path) -> None:
    folder = tmp_path / "store"
    build_store(folder, [hr], None, 4)
    content = bytearray((folder / "gt.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "gt.bin").write_bytes(content)
    os.utime(next(hr.iterdir()))
    build_store(folder, [hr], None, 4)
    verify_store(folder)


def test_a_folder_whose_number_never_stays_is_named(
    tmp_path: Path, hr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_store(tmp_path / "store", [hr], None, 4).folder
    stat, numbers = Path.stat, itertools.count()

    def unsteady(path: Path, **how: Any) -> Any:
        return SimpleNamespace(st_ino=next(numbers)) if path == folder else stat(path, **how)

    monkeypatch.setattr(Path, "stat", unsteady)
    with pytest.raises(LsfdError, match="replaced again and again"):
        open_store(folder)


def test_a_store_is_packed_where_there_are_no_locks(
    tmp_path: Path, hr: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(logging.getLogger("lsfd"), "propagate", True)
    assert len(build_store(tmp_path / "store", [hr], None, 4)) == 3
    assert "has no locks (No locks available)" in caplog.text


def test_the_command_checks_stores(
    tmp_path: Path, hr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(build_store(tmp_path / name, [hr], None, 4).folder) for name in ("a", "b")]
    assert main(["prepare", "--check", *folders]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in said] == folders
    assert main(["prepare", "--check", str(tmp_path)]) == 2
    assert "is not a usable image store" in capsys.readouterr().err
    assert main(["prepare", "-i", str(hr)]) == 2
    assert "-o is missing" in capsys.readouterr().err


def test_what_a_killed_process_left_of_a_store_goes(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    build_store(folder, [photographs], None, 2)
    for name in (".store.new", ".store.old"):
        (tmp_path / name).mkdir()
    with FileLock(tmp_path / ".store.lock"):  # Another process is building.
        build_store(folder, [photographs], None, 2)
        assert (tmp_path / ".store.new").exists()
    build_store(folder, [photographs], None, 2)
    assert {path.name for path in tmp_path.iterdir()} <= {"store", ".store.lock"}


def test_two_lr_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for file in ("hr/1.png", "lr/1.png", "lr/1.bmp"):
        write_image(tmp_path / file, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(LsfdError, match=r"1\.bmp and .*1\.png have the same name"):
        find_pairs([tmp_path / "hr"], tmp_path / "lr", 1)
