"""Damaged files: noticed, named in one sentence, and never a wrong result in silence."""

from __future__ import annotations

import json
import logging
import signal
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lsfd.data.pack import build_store
from lsfd.data.store import INDEX_FILE, open_store
from lsfd.errors import LsfdError
from lsfd.imaging import files
from lsfd.imaging.files import read_image
from lsfd.imaging.picture import Picture
from lsfd.imaging.picture_files import write_picture
from lsfd.imaging.raster import Raster
from lsfd.networks.weights import read_state_dict
from lsfd.training.checkpoint import load_checkpoint, newest_readable, random_state, save_checkpoint
from lsfd.training.records import read_records

SOAK = Path(__file__).parent.parent / "scripts" / "soak"

VARIANTS = 400
"""Of all kinds together, in the short form of ``scripts/soak/fuzz.py``."""


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SOAK))
    import fuzz

    yield fuzz
    for name in ("fuzz", "fuzz_kinds", "evidence"):
        sys.modules.pop(name, None)


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """End what takes longer by an error."""

    def end(*_: object) -> None:
        raise TimeoutError(f"it hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="hangs are ended by a Unix signal")
def test_damaged_files_of_every_kind(fuzz: Any, tmp_path: Path) -> None:
    fuzzer = fuzz.Fuzzer(tmp_path, fuzz.KINDS, seed=0)
    found: Counter[str] = Counter()
    for number in range(VARIANTS):
        with patience(30):
            outcome = fuzzer.attempt(number)
        kind = fuzzer.kinds[number % len(fuzzer.kinds)].name
        assert outcome.word in fuzz.GOOD, (kind, number, outcome)
        found[outcome.word] += 1
    assert found["refused"] > VARIANTS / 3 and found["same"]


def checkpoint(path: Path, iteration: int) -> bytes:
    state = {
        "iteration": iteration,
        "model": {"weight": torch.linspace(0, iteration, 1000)},
        "random": [random_state()],
        "best": None,
        "scores": {},
    }
    save_checkpoint(path, state)
    return path.read_bytes()


def test_every_bit_of_a_checkpoint_s_weights_counts(tmp_path: Path) -> None:
    data = checkpoint(tmp_path / "20.state", 20)
    place = data.index(torch.linspace(0, 20, 1000).numpy().tobytes())
    for offset in (0, 1, 1999, 3998, 3999):
        changed = bytearray(data)
        changed[place + offset] ^= 16
        (tmp_path / "20.state").write_bytes(changed)
        with pytest.raises(LsfdError, match=r"is damaged: the checksum of .*/data/\d+"):
            load_checkpoint(tmp_path / "20.state")


def test_a_resume_takes_the_checkpoint_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lsfd"), "propagate", True)
    checkpoint(tmp_path / "10.state", 10)
    data = bytearray(checkpoint(tmp_path / "20.state", 20))
    data[len(data) // 2] ^= 1
    (tmp_path / "20.state").write_bytes(data)
    state, path = newest_readable(tmp_path)
    assert (state["iteration"], path.name) == (10, "10.state")
    assert "20.state" in caplog.text and "trying the checkpoint before it" in caplog.text
    (tmp_path / "10.state").write_bytes(b"")
    with pytest.raises(LsfdError, match="none of its 2 checkpoints can be read"):
        newest_readable(tmp_path)


@pytest.mark.parametrize(
    "state",
    [{}, {"iteration": "7"}, {"iteration": 7, "model": [], "random": [], "scores": {}}, [1]],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, state: Any) -> None:
    path = tmp_path / "7.state"
    torch.save({"format": 1, **state} if isinstance(state, dict) else state, path)
    with pytest.raises(LsfdError, match="not a training state"):
        load_checkpoint(path)


def test_a_flipped_bit_in_another_project_s_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"params": {"weight": torch.linspace(0, 1, 1000)}}, path)
    with zipfile.ZipFile(path) as archive:
        entry = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
    data = bytearray(path.read_bytes())
    data[data.index(torch.linspace(0, 1, 1000).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(LsfdError, match=rf"checksum of {entry.filename}"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", 4), ("names", ["HR/x.png"]), ("fingerprint", "0" * 64), ("source", ""),
     ("scale", 0), ("shapes", []), ("shapes", [[-8, -12]]), ("version", "1"), ("names", None)],
)  # fmt: skip
def test_a_changed_index_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "HR").mkdir()
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "HR" / "a.png")
    store = build_store(tmp_path / "store", [tmp_path / "HR"], None, 2)
    path = tmp_path / "store" / INDEX_FILE
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {field: value}))
    with pytest.raises(LsfdError, match="is not a usable image store"):
        open_store(tmp_path / "store")
    del index["seal"]  # As stores of older versions are.
    path.write_text(json.dumps(index))
    assert open_store(tmp_path / "store").fingerprint == store.fingerprint


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_cut_image_is_not_trained_on(tmp_path: Path, ending: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(LsfdError, match="is not an image that can be read"):
        read_image(path)


def test_an_opencv_that_fills_up_a_cut_jpeg_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 4 puts grey in the place of what is missing; version 5 refuses by itself."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    exif = Image.Exif()
    exif[0x010E] = "with the end of a thumbnail: \xff\xd9"
    Image.fromarray(noise).save(whole, exif=exif, comment=b"\xff\xd9")
    cut.write_bytes(whole.read_bytes()[:-10])
    monkeypatch.setattr(files.cv2, "imdecode", lambda data, flags: noise)
    assert read_image(whole).shape == noise.shape
    with pytest.raises(LsfdError, match="is not an image that can be read"):
        read_image(cut)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_a_camera_puts_behind_a_jpeg_is_left_alone(tmp_path: Path, progressive: bool) -> None:
    """Films, depth maps: among them stand the marks of a beginning and an end, by chance."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path, progressive=progressive)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + b"film\xff\xd9film\xff\xdafilm")
    assert np.array_equal(read_image(path), whole)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "3",
        '{"kind": 1, "iteration": 1}',
        '{"kind": "run"}',
        '{"kind": "run", "data": 1}',
        '{"kind": "train", "iteration": 1}',
        '{"kind": "val", "iteration": 1, "set": [], "scores": {}}',
    ],
)
def test_a_line_without_what_is_read_of_it_is_no_record(tmp_path: Path, line: str) -> None:
    records = tmp_path / "metrics.jsonl"
    records.write_text(line + "\n")
    assert read_records(records) == []
    with pytest.raises(LsfdError, match="line 1 is no record"):
        read_records(records, complete=True)


def test_an_absurd_resolution_is_written_as_far_as_it_goes(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    picture = Picture(Raster.from_array(pixels), resolution=(1e6, 1e6))
    for ending in ("bmp", "png", "tif", "jpg", "webp"):
        write_picture(tmp_path / f"a.{ending}", picture)
        assert read_image(tmp_path / f"a.{ending}").shape == (4, 4, 3)
