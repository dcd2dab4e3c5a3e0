"""Kept results of teachers: the same training, bit for bit, whatever happened to the cache."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import pytest
import torch
from helpers import assert_same
from torch import Tensor

from lsfd.config.load import options_from_dict
from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.training.checkpoint import checkpoints
from lsfd.training.distributed import Processes
from lsfd.training.model import LSFDModel
from lsfd.training.run import Run
from lsfd.training.samples import training_loader
from lsfd.training.teacher_cache import HEADER_BYTES, SEAL_BYTES, Records, TeacherCache

Options = Callable[..., dict[str, Any]]
Usage = namedtuple("Usage", "total used free")
FORK = multiprocessing.get_context("fork")
CPU = torch.device("cpu")
DIGEST = bytes(range(32))
"""Stands for that of an input."""


@pytest.fixture
def options(run_options: Options, tmp_path: Path) -> Options:
    """A function that gives the options of a run with a cache, or without."""

    def make(*, cached: bool = True, **sections: Any) -> dict[str, Any]:
        made = run_options(**sections)
        made["path"]["teacher_cache"] = str(tmp_path / "kept") if cached else None
        return made

    return make


def train(options: dict[str, Any], processes: Processes | None = None) -> tuple[Any, int]:
    """Return what a training without validation changed, and how often a teacher ran."""
    run = Run(options_from_dict(options), processes or Processes())
    calls = count_calls(run.model)
    for batch in training_loader(run.loaded, run.dataset, run.processes, 0):
        run.iteration += 1
        run.model.feed_data(batch)
        run.model.optimize_parameters(run.iteration)
    return run.model.state_dict(), len(calls)


def count_calls(model: LSFDModel) -> list[None]:
    """Return a list that grows whenever one of the model's teachers runs."""
    calls: list[None] = []
    for teacher in model.teachers:
        teacher.network.register_forward_hook(lambda *_: calls.append(None))
    return calls


def files(tmp_path: Path) -> dict[str, Path]:
    """Return the files of the only cache by name."""
    (folder,) = (tmp_path / "kept").iterdir()
    return {path.name: path for path in folder.iterdir()}


def filled(folder: Path, count: int = 3) -> TeacherCache:
    """A cache that holds the results of :func:`teach` on batches 0 ... count - 1."""
    cache = TeacherCache(folder, {"teacher": {"network": "EDSR"}}, ["body"], count)
    for number in range(count):
        cache(batch(number), number, teach)
    return cache


def batch(number: int) -> Tensor:
    return torch.full((2, 3, 4, 4), float(number))


def teach(lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return lq + 1, {"body": 2 * lq}


def refuse(lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    raise AssertionError("the teacher ran")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_training_is_the_same_bit_for_bit(
    options: Options, precision: str, channels_last: bool
) -> None:
    train_section = {"precision": precision, "channels_last": channels_last}
    expected, calls = train(options(cached=False, train=train_section))
    assert calls == 12
    for calls_expected in (12, 0):
        state, calls = train(options(train=train_section))
        assert_same(state, expected)
        assert calls == calls_expected


def test_each_teacher_has_a_cache(options: Options, teacher_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    given = options()
    other = tmp_path / "other.pth"
    torch.save({"params": build_network(given["network_t"]).state_dict()}, other)
    given["network_t"] = [given["network_t"]] * 2
    given["path"]["pretrain_network_t"] = [str(teacher_file), str(other)]
    without = {**given, "path": {**given["path"], "teacher_cache": None}}
    expected, _ = train(without)
    for calls_expected in (24, 0):
        state, calls = train(given)
        assert_same(state, expected)
        assert calls == calls_expected


def test_a_resume_reads_and_goes_on_writing(options: Options, no_curves: None) -> None:
    def go(given: dict[str, Any], *, auto_resume: bool = False) -> tuple[Run, int]:
        del given["datasets"]["val"]
        run = Run(options_from_dict(given), Processes())
        calls = count_calls(run.model)
        run.go(auto_resume=auto_resume)
        return run, len(calls)

    whole, _ = go(options(name="whole", cached=False))
    train(options(train={"total_iter": 8}))
    parts, calls = go(options(name="parts"))
    assert calls == 4
    checkpoints(parts.folder.states)[0].unlink()
    parts.folder.student.unlink()
    parts, calls = go(options(name="parts"), auto_resume=True)
    assert calls == 0
    assert parts.folder.student.read_bytes() == whole.folder.student.read_bytes()


def test_other_methods_add_what_is_missing(options: Options, tmp_path: Path) -> None:
    train(options(distillers=[{"type": "Output"}]))
    assert files(tmp_path).keys() == {"meta.json", "output.bin"}
    outputs = files(tmp_path)["output.bin"]
    before = outputs.stat().st_mtime_ns
    assert train(options(distillers=[{"type": "LSFD", "taps": ["body.0", "body.2"]}]))[1] == 12
    fitnet = [{"type": "FitNet", "taps": ["body.2"]}]
    state, calls = train(options(distillers=fitnet))
    assert calls == 0
    assert_same(state, train(options(cached=False, distillers=fitnet))[0])
    taps = {"tap.body.0.bin", "tap.body.2.bin"}
    assert files(tmp_path).keys() == {"meta.json", "output.bin"} | taps
    assert outputs.stat().st_mtime_ns == before


def test_only_iterations_that_ask_the_teacher_are_kept(options: Options) -> None:
    late = [{"type": "LSFD", "start": 5, "end": 7}]
    assert [train(options(distillers=late))[1] for _ in range(2)] == [3, 0]
    assert train(options())[1] == 9


def test_samples_count_not_the_iteration(options: Options) -> None:
    for rank in range(2):
        half = options(train={"total_iter": 3, "accumulate": 2})
        assert train(half, Processes(rank, 2))[1] == 6
    assert train(options())[1] == 0


def test_other_input_than_the_kept_is_computed(options: Options) -> None:
    train(options())
    fed = {"lq": torch.rand(2, 3, 12, 12), "gt": torch.rand(2, 3, 24, 24)}
    logs = []
    for cached in (False, True):
        torch.manual_seed(0)
        model = LSFDModel(options_from_dict(options(cached=cached)))
        model.feed_data(fed)
        model.optimize_parameters(1)
        logs.append(model.get_current_log())
    assert logs[0] == logs[1]


def _flip(content: bytearray, place: int) -> bytearray:
    content[place] ^= 1
    return content


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda content: _flip(content, HEADER_BYTES + 7), 1),  # the first record
        (lambda content: _flip(content, -1), 1),  # the last record's seal
        (lambda content: content[:-1], 1),
        (lambda content: _flip(content, 3), 1),  # the header, which the first write mends
        (lambda content: content[:100], 3),
        (lambda content: b"", 3),
    ],
)
@pytest.mark.parametrize("name", ["output", "tap.body"])
def test_what_is_damaged_is_computed_again(
    tmp_path: Path, name: str, damage: Callable[[bytearray], bytes], lost: int
) -> None:
    cache = filled(tmp_path)
    file = cache.folder / f"{name}.bin"
    whole = file.read_bytes()
    file.write_bytes(damage(bytearray(whole)))
    calls = []

    def counted(lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        calls.append(lq)
        return teach(lq)

    for number in range(3):
        assert_same(cache(batch(number), number, counted), teach(batch(number)))
    assert len(calls) == lost
    assert file.read_bytes() == whole


def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "output.bin"
    Records(path).write(0, DIGEST, torch.rand(1, 2, 3, 4))
    whole = path.read_bytes()
    for place in [*range(0, HEADER_BYTES, 16), *range(HEADER_BYTES, len(whole))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert Records(path).read(0, DIGEST, CPU) is None, place


def test_a_lost_file_is_made_anew(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    shutil.rmtree(cache.folder)
    assert_same(filled(tmp_path)(batch(2), 2, refuse), teach(batch(2)))


def test_a_write_cut_off_at_any_byte_leaves_no_record(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.bin")
    old, new = torch.rand(2, 3), torch.rand(2, 3)
    records.write(0, DIGEST, old)
    before = (tmp_path / "records.bin").read_bytes()
    records.write(0, DIGEST, new)
    after = (tmp_path / "records.bin").read_bytes()
    for cut in range(HEADER_BYTES + 1, len(after)):
        (tmp_path / "records.bin").write_bytes(after[:cut] + before[cut:])
        assert records.read(0, DIGEST, CPU) is None
        (tmp_path / "records.bin").write_bytes(after[:cut])
        assert records.read(0, DIGEST, CPU) is None
    (tmp_path / "records.bin").write_bytes(after)
    assert torch.equal(records.read(0, DIGEST, CPU), new)


LARGE = torch.ones(1 << 18)


def _write_on_and_on(file: Path) -> None:
    records = Records(file)
    for number in range(10**9):
        records.write(number % 20, DIGEST, number * LARGE)


def test_a_killed_writer_leaves_whole_records_only(tmp_path: Path) -> None:
    chance = random.Random(5)
    file = tmp_path / "records.bin"
    for _ in range(8):
        file.unlink(missing_ok=True)
        process = FORK.Process(target=_write_on_and_on, args=(file,))
        process.start()
        while not file.exists() or file.stat().st_size < 3 * 4 * LARGE.numel():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        read = [Records(file).read(number, DIGEST, CPU) for number in range(20)]
        found = [(number, tensor) for number, tensor in enumerate(read) if tensor is not None]
        assert len(found) >= 2
        for number, tensor in found:
            assert tensor.unique().numel() == 1 and tensor[0] % 20 == number


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x,
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x[:, 1:, :5, 2:-1],
        lambda x: x[:1, :, :1].expand(3, -1, 4, -1),
        lambda x: x[0, 0, 0, 0],
    ],
)
def test_a_tensor_comes_back_as_it_was(
    tmp_path: Path, dtype: torch.dtype, arrange: Callable[[Tensor], Tensor]
) -> None:
    whole = torch.randn(2, 3, 6, 7).to(dtype)
    whole[0, 1, 2, 3] = float("nan")
    tensor = arrange(whole)
    records = Records(tmp_path / "records.bin")
    records.write(2, DIGEST, tensor)
    read = records.read(2, DIGEST, CPU)
    assert read is not None and read.dtype == dtype
    assert (read.shape, read.stride()) == (tensor.shape, tensor.stride())
    bits = [value.flatten().view(torch.uint8) for value in (read, tensor)]
    assert torch.equal(*bits)
    assert records.read(2, bytes(32), CPU) is None
    assert records.read(1, DIGEST, CPU) is None and records.read(3, DIGEST, CPU) is None


def test_a_disk_that_is_too_small_is_refused(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 2**30 + 1000))
    with pytest.raises(
        LsfdError, match=r"^path\.teacher_cache: .*will take 0\.0 GiB.*or give null"
    ):
        train(options())
    assert not list((tmp_path / "kept").rglob("*.bin"))


def test_no_room_is_needed_for_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = filled(tmp_path).folder / "output.bin"
    file.write_bytes(_flip(bytearray(file.read_bytes()), HEADER_BYTES))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 5))
    assert_same(filled(tmp_path)(batch(0), 0, refuse), teach(batch(0)))


@contextmanager
def small_files() -> Iterator[None]:
    """The system lets no file grow beyond the header and half a record of :func:`filled`.

    No fixture: pytest reports to a file of its own between a test and its fixtures' end.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    half = 4 * batch(0).numel() // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER_BYTES + half, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_is_named_and_leaves_no_record(tmp_path: Path) -> None:
    sentence = r"^path\.teacher_cache: .*File too large.*--auto_resume"
    with small_files(), pytest.raises(LsfdError, match=sentence):
        filled(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert (folder / "output.bin").stat().st_size > HEADER_BYTES
    assert Records(folder / "output.bin").read(0, DIGEST, CPU) is None


def folder_of(options: dict[str, Any]) -> Path:
    (cache,) = LSFDModel(options_from_dict(options)).lessons.caches
    return cache.folder


def _changed(options: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    *path, last = key.split(".")
    section = options
    for step in path:
        section = section[step]
    section[last] = value
    return options


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("manual_seed", 4),
        ("datasets.train.batch_size_per_gpu", 3),
        ("datasets.train.gt_size", 28),
        ("datasets.train.use_hflip", False),
        ("datasets.train.use_rot", False),
        ("datasets.train.skip_small", True),
        ("datasets.train.dataroot_gt", os.sep),
        ("train.precision", "bf16"),
        ("train.channels_last", False),
        ("network_t.res_scale", 0.5),
    ],
)
def test_what_changes_results_changes_the_folder(options: Options, key: str, value: Any) -> None:
    assert folder_of(options()) != folder_of(_changed(options(), key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.total_iter", 100),
        ("train.accumulate", 2),
        ("train.optim_g.lr", 1e-4),
        ("datasets.train.num_worker_per_gpu", 1),
        ("distillers", [{"type": "Output"}]),
        ("network_g.num_feat", 10),
    ],
)
def test_what_changes_no_result_shares_the_folder(options: Options, key: str, value: Any) -> None:
    assert folder_of(options()) == folder_of(_changed(options(), key, value))


def test_other_weights_change_the_folder(options: Options, tmp_path: Path) -> None:
    given = options()
    weights = torch.load(given["path"]["pretrain_network_t"])["params"]
    weights["conv_last.bias"][0] += 1e-6
    torch.save({"params": weights}, tmp_path / "other.pth")
    other = _changed(options(), "path.pretrain_network_t", str(tmp_path / "other.pth"))
    assert folder_of(given) != folder_of(other)


def test_threads_change_the_folder(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    one = folder_of(options())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert folder_of(options()) != one


def test_the_folder_says_what_it_is_for(options: Options, tmp_path: Path) -> None:
    train(options(train={"total_iter": 1}))
    meta = json.loads(files(tmp_path)["meta.json"].read_text())
    assert "May be deleted" in meta["purpose"]
    assert meta["teacher"]["network"] == "EDSR" and meta["samples"]["seed"] == 3


def test_the_output_of_a_slow_tail_is_kept_apart(options: Options, tmp_path: Path) -> None:
    """A tail that is not run as one rounds otherwise."""
    train(options(distillers=[{"type": "Output"}]))
    assert "output.slow_tail.bin" not in files(tmp_path)
    taps = ["upsample:input"]
    _, calls = train(options(distillers=[{"type": "FitNet", "taps": taps}]))
    assert calls == 12
    assert {"output.bin", "output.slow_tail.bin"} < files(tmp_path).keys()


def test_an_input_tap_has_a_usable_name(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path, {"teacher": {"network": "EDSR"}}, ["a/b.2:input"], 1)
    cache(batch(0), 0, lambda lq: (lq, {"a/b.2:input": lq}))
    names = [path.name for path in cache.folder.iterdir()]
    assert not [name for name in names if ":" in name]
    assert cache(batch(0), 0, refuse)[1].keys() == {"a/b.2:input"}


def test_a_record_is_as_large_as_the_tensor(tmp_path: Path) -> None:
    file = filled(tmp_path).folder / "output.bin"
    record = 4 * batch(0).numel() + SEAL_BYTES
    assert file.stat().st_size == HEADER_BYTES + 3 * record
