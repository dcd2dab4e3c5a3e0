"""A disk that fails ends a command in one sentence; mended, the same command finishes.

With a short form of ``scripts/soak/disks.py``, on small file systems in memory.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import exit_status, output_of, run_folder, start_training, wait_for, write_run
from tensorboard.compat.tensorflow_stub.io import gfile

from lsfd.cli import main
from lsfd.data.pack import ensure_store
from lsfd.data.prepare import prepare_pairs
from lsfd.data.store import GT_FILE
from lsfd.disk import DiskError
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image
from lsfd.inference.folder import upscale_path
from lsfd.training import reporter
from lsfd.training.checkpoint import save_checkpoint
from lsfd.training.records import append_record
from lsfd.training.samples import naming_dead_workers

SOAK = Path(__file__).parent.parent / "scripts" / "soak"
FULL = Path("/dev/full")
"""Whoever writes to it is told that the disk is full."""

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    if sys.platform != "linux":
        pytest.skip("disks are mounted as Linux does it")
    monkeypatch.syspath_prepend(str(SOAK))
    import disks
    import warm

    try:
        with warm.small_disk(tmp_path / "trial", 1 << 20):
            pass
    except PermissionError as error:
        pytest.skip(str(error))
    yield disks
    for name in ("disks", "kills", "scenes", "warm", "evidence"):
        sys.modules.pop(name, None)


class Doubling:
    """In the place of a network."""

    scale = 2
    at_once = 1
    calls = 0

    def expect(self, images: int) -> None:
        pass

    def enlarge(self, source: Any, target: Any, progress: Any = None) -> None:
        self.calls += 1
        height, width, _ = source.shape
        target.write(0, 0, source.read(0, height, 0, width).repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("verb", "failures"),
    [
        ("train", ("fill", "vanish", "read-only", "inodes")),
        ("upscale", ("fill", "vanish")),
        ("prepare", ("fill", "limit")),
    ],
)
def test_a_command_survives_its_disk(
    disks: Any, tmp_path: Path, verb: str, failures: tuple[str, ...]
) -> None:
    # Kinds of a verb are taken in turn; the first alone suffices here.
    outcome = disks.fail_all(tmp_path, len(failures), 1, [verb], failures, kinds=1)
    assert not outcome.failures
    assert sum(outcome.stopped.values()) > 0


def full(path: Path) -> Path:
    if not FULL.exists():
        pytest.skip("there is no /dev/full")
    path.symlink_to(FULL)
    return path


def test_records_and_logs_on_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = r"{} cannot be written: No space left on device; free space there, then go on with"
    records = full(tmp_path / "metrics.jsonl")
    with pytest.raises(DiskError, match=sentence.format(records)):
        append_record(records, {"kind": "run"})
    log = full(tmp_path / "train.log")
    reporter.log_to(log)
    handlers = [weakref.ref(handler) for handler in reporter.LOGGER.handlers]
    try:
        with pytest.raises(DiskError, match=sentence.format(log)):
            reporter.LOGGER.info("a line")
        reporter.LOGGER.info("the next one")
    finally:
        reporter.log_to(None)
        logging.shutdown(handlers)  # As at the end of a process.
    assert "Traceback" not in capsys.readouterr().err


def test_tensorboard_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    folder = SimpleNamespace(tensorboard=tmp_path / "tb", records=tmp_path / "metrics.jsonl")
    board = reporter.Reporter(folder, "run", 10, 0, use_tensorboard=True)  # type: ignore[arg-type]
    monkeypatch.setattr(gfile.LocalFileSystem, "_write", refuse)  # In its thread.
    with (
        pytest.raises(DiskError, match=r"tb cannot be written: No space left .* --auto_resume"),
        board,
    ):
        board.losses(1, {"l1": 0.1}, 1e-3, 0)
    assert not printed and threading.excepthook == printed.append


def test_a_checkpoint_names_the_systems_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "5.state"
    path.write_bytes(b"old")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(DiskError, match="File too large; raise the limit on the size of a fil"):
            save_checkpoint(path, {"iteration": 5, "text": "x" * 100_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(DiskError, match="see to it that the disk or network share is there"):
        save_checkpoint(tmp_path / "gone" / "5.state", {})
    assert not (tmp_path / "gone").exists()


def test_what_torch_cannot_save_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no disk's fault")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(RuntimeError, match="no disk's fault") as error:
        save_checkpoint(tmp_path / "5.state", {})
    assert error.value.__cause__ is None  # Nor itself.


def test_a_failed_image_gives_its_room_back(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasters = []

    class Failing(Doubling):
        def enlarge(self, source: Any, target: Any, progress: Any = None) -> None:
            rasters.append(target)
            raise LsfdError("no")

    monkeypatch.setattr("lsfd.imaging.raster.IN_MEMORY", 0)
    report = upscale_path(photographs, tmp_path / "out", Failing())
    assert len(report.failed) == len(rasters) == 2
    assert all(raster._file.closed for raster in rasters)


def test_a_broken_connection_is_named_where_no_signal_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(signal, "SIGCHLD")  # As on Windows.
    with pytest.raises(LsfdError, match="was ended by a signal"), naming_dead_workers():
        raise ConnectionResetError


def test_a_store_that_cannot_be_packed_leaves_nothing(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DiskError, match=r"image store .* File too large; .*, then give the sa"):
            ensure_store(tmp_path, [photographs], None, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    ensure_store(tmp_path, [photographs], None, 2)


def test_a_full_disk_stops_a_folder_at_once(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    images = tmp_path / "images"
    for number in range(20):
        write_image(images / f"{number:02}.png", read_image(photographs / "chelsea.png"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    doubling = Doubling()
    try:
        with pytest.raises(DiskError, match=r"\.png cannot be written: File too large"):
            upscale_path(images, tmp_path / "out", doubling)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").iterdir()) and doubling.calls < 20


def test_a_folder_leaves_no_older_leftovers(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    upscale_path(photographs, out, Doubling())
    prepare_pairs(photographs, tmp_path / "pairs", [2], workers=1)
    left = [
        out / ".chelsea.png.0.tmp", tmp_path / "pairs" / "HR" / ".chelsea.png.0.tmp",
        tmp_path / "pairs" / "LR_bicubic" / "X2" / ".chelsea.png.0.tmp",
    ]  # fmt: skip
    for path in left:
        path.touch()
    assert len(upscale_path(photographs, out, Doubling(), resume=True).kept) == 2
    assert prepare_pairs(photographs, tmp_path / "pairs", [2], workers=1).existing == 2
    assert not [path for path in left if path.exists()]


def test_a_killed_worker_of_prepare_is_told(photographs: Path, tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.001):
            started = set(multiprocessing.active_children()) - before
            if len(started) == 2:
                os.kill(started.pop().pid or 0, signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(LsfdError, match=r"a process that makes pairs was killed.*--workers"):
            prepare_pairs(photographs, tmp_path / "pairs", [2], workers=2)
    finally:
        over.set()
        killer.join()


def test_a_store_that_vanishes_under_the_loader_is_told(
    run_options: Options, tmp_path: Path
) -> None:
    options = run_options(train={"total_iter": 100_000}, val={"val_freq": 100_000})
    options["datasets"]["train"]["num_worker_per_gpu"] = 1
    options["datasets"]["train"]["cache_dir"] = str(tmp_path / "cache")
    file = write_run(tmp_path, options)
    process = start_training(file)
    wait_for(file, "8/100000")
    for store in (tmp_path / "cache").glob(f"*/{GT_FILE}"):
        os.truncate(store, 0)  # The system answers a look at it as if the disk were gone.
    status = exit_status(process)
    assert status == 2, output_of(file).read_text()
    told = output_of(file).read_text()
    assert "lsfd: a process that loads training samples was ended by a" in told
    assert "Traceback" not in told
    assert list(run_folder(file).states.glob("*.state"))


def test_other_errors_of_the_loader_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="Caught"), naming_dead_workers():
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.")


@pytest.mark.parametrize(
    ("last_call", "val_freq", "save_freq"),
    [
        ("LSFDModel.optimize_parameters", 1, 100),
        ("validate", 1, 100),
        ("LSFDModel.optimize_parameters", 100, 1),
        ("save_checkpoint", 100, 1),
    ],
    ids=["before validation", "during validation", "before a checkpoint", "at the end"],
)
def test_a_run_whose_folder_has_gone_makes_no_other(
    run_options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], last_call: str, val_freq: int, save_freq: int,
) -> None:  # fmt: skip
    """When a disk has been unplugged, the path of a folder on it stands for one on another."""
    options = run_options(
        train={"total_iter": 1 if last_call == "save_checkpoint" else 2},
        val={"val_freq": val_freq, "save_img": True},
        logger={"print_freq": 100, "save_checkpoint_freq": save_freq},
    )
    file = write_run(tmp_path, options)
    root = run_folder(file).root
    call = pkgutil.resolve_name(f"lsfd.training.run:{last_call}")

    def unplug_after(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        root.rename(tmp_path / "unplugged")
        return result

    monkeypatch.setattr(f"lsfd.training.run.{last_call}", unplug_after)
    assert main(["train", "-opt", str(file)]) == 2
    assert f"{root} is not there any more" in capsys.readouterr().err
    assert not root.exists()
