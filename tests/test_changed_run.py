"""A run that goes on: what may have changed since it began, and what is refused."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import pytest
import torch
from conftest import STUDENT
from helpers import assert_same, train_here, write_run
from option_texts import message
from PIL import Image

from lsfd.cli import main
from lsfd.config.changes import FREE, TOTAL_ITER, first_change
from lsfd.config.load import options_from_dict
from lsfd.config.options import Options as OptionFile
from lsfd.data import store
from lsfd.data.pack import build_store, ensure_store
from lsfd.data.prepare import prepare_pairs
from lsfd.imaging.files import read_image, write_image
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, load_any, save_student
from lsfd.training.checkpoint import checkpoints
from lsfd.training.distributed import Processes
from lsfd.training.records import read_records
from lsfd.training.run import Run

pytestmark = pytest.mark.usefixtures("no_curves")

Options = Callable[..., dict[str, Any]]
EIGHT = {"total_iter": 8}


def changed(options: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return options with one of them changed."""
    result = copy.deepcopy(options)
    *path, last = key.split(".")
    section: Any = result
    for step in path:
        section = section[int(step)] if step.isdigit() else section.setdefault(step, {})
    section[last] = value
    return result


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where the run of the first test lies that asks for it; the others copy it."""
    return {"folder": tmp_path_factory.mktemp("begun") / "tiny"}


@pytest.fixture
def options(run_options: Options, begun: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Options of a run that has been trained; each test has its folder for itself."""
    options = run_options(train=EIGHT)
    if not begun["folder"].exists():
        shutil.copytree(train_here(options).folder.root, begun["folder"])
        shutil.rmtree(tmp_path / "experiments")
    shutil.copytree(begun["folder"], tmp_path / "experiments" / "tiny")
    return options


DECISIVE = [
    ("manual_seed", 4, "manual_seed was 3 and is 4 now"),
    ("network_g.num_feat", 10, "network_g.num_feat was 8 and is 10 now"),
    ("network_t.res_scale", 0.5, "network_t.0.res_scale was not given and is 0.5 now"),
    ("distillers.0.type", "FAKD", "distillers.0.type was LSFD and is FAKD now"),
    ("distillers.0.weights", {"output": 2.0}, "distillers.0.weights.output was not given"),
    ("distillers.0.start", 3, "distillers.0.start was 1 and is 3 now"),
    ("train.optim_g.lr", 1e-4, "train.optim_g.lr was 0.001 and is 0.0001 now"),
    ("train.pixel_opt", {"type": "MSELoss"}, "train.pixel_opt.type was L1Loss and is MSELoss now"),
    ("train.precision", "bf16", "train.precision was fp32 and is bf16 now"),
    ("train.accumulate", 2, "train.accumulate was 1 and is 2 now"),
    ("train.ema_decay", 0.5, "train.ema_decay was 0.9 and is 0.5 now"),
    ("train.warmup_iter", 3, "train.warmup_iter was -1 and is 3 now"),
    ("datasets.train.batch_size_per_gpu", 3, "datasets.train.batch_size_per_gpu was 2 and is 3"),
    ("datasets.train.gt_size", 28, "datasets.train.gt_size was 24 and is 28 now"),
    ("datasets.train.degradation", {"noise": 5.0}, "degradation.noise was not given and is 5.0"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), DECISIVE, ids=[key for key, *_ in DECISIVE])
def test_what_decides_the_student_is_refused(
    options: dict[str, Any], tmp_path: Path, key: str, value: Any, sentence: str
) -> None:
    before = content(tmp_path / "experiments")
    run = Run(options_from_dict(changed(options, key, value)), Processes())
    said = message(lambda: run.go(auto_resume=True))
    assert f"{run.folder.root} was begun with other options ({run.folder.options}): " in said
    assert sentence in said
    assert "restore it, start under another name, or " in said and "path.resume_state" in said
    assert content(tmp_path / "experiments") == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger.print_freq", 1),
        ("logger.keep_checkpoints", 5),
        ("val.val_freq", 5),
        ("val.metrics", {"ssim": {"type": "calculate_ssim"}}),
        ("datasets.val", {"name": "others", "dataroot_gt": "here"}),
        ("datasets.train.name", "other"),
        ("datasets.train.cache_dir", "elsewhere"),
        ("datasets.train.num_worker_per_gpu", 1),
        ("num_gpu", "auto"),
        ("dist_params", {"port": 29501}),
        ("path.teacher_cache", "kept"),
        ("path.pretrain_network_t", "elsewhere/teacher.pth"),
        ("train.channels_last", False),
        ("train.max_skipped", 3),
        ("train.clip_grad_norm", 0),  # the default, written out
    ],
)
def test_what_decides_nothing_may_change(options: dict[str, Any], key: str, value: Any) -> None:
    before, now = (
        options_from_dict(each).options for each in (options, changed(options, key, value))
    )
    assert first_change(before, now, scores=False) is None


def test_scores_are_results_where_runs_are_compared(options: dict[str, Any]) -> None:
    other = changed(options, "datasets.val.name", "others")
    before, now = (options_from_dict(each).options for each in (options, other))
    assert str(first_change(before, now)) == "datasets.val.name was photographs and is others now"


def test_every_free_option_is_there_and_has_a_reason() -> None:
    schema = OptionFile.model_json_schema()
    for name, reason in FREE.items():
        section: Any = schema
        for step in name.split("."):
            while "$ref" in section:
                section = schema["$defs"][section["$ref"].rpartition("/")[2]]
            assert step in section["properties"], name
            section = section["properties"][step]
        assert reason


def test_a_longer_run_ends_like_one_that_was_planned_so(
    run_options: Options, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train_here(run_options(name="whole", train={"total_iter": 12}))
    capsys.readouterr()
    longer = train_here(changed(options, TOTAL_ITER, 12), auto_resume=True)
    assert "train.total_iter was 8 and is 12 now\n" in capsys.readouterr().out
    assert_same(whole.model.net_g_ema.state_dict(), longer.model.net_g_ema.state_dict())
    begun = [r["total_iter"] for r in read_records(longer.folder.records) if r["kind"] == "run"]
    assert begun == [8, 12]
    again = Run(options_from_dict(changed(options, TOTAL_ITER, 10)), Processes())
    said = message(lambda: again.go(auto_resume=True))
    assert "train.total_iter: " in said and "has 12 iterations behind it already" in said


def test_a_schedule_over_the_whole_run_keeps_its_length(run_options: Options) -> None:
    cosine = {**EIGHT, "scheduler": {"type": "CosineAnnealingLR"}}
    options = run_options(distillers=[{"type": "Output"}], train=cosine)
    train_here(options)
    run = Run(options_from_dict(changed(options, TOTAL_ITER, 12)), Processes())
    said = message(lambda: run.go(auto_resume=True))
    assert "train.total_iter was 8 and is 12 now; and the learning rates" in said
    assert "CosineAnnealingLR" in said


def test_a_checkpoint_named_on_purpose_goes_on_with_anything(options: dict[str, Any]) -> None:
    root = Path(options["path"]["experiments_root"]) / "tiny"
    other = changed(options, "train.optim_g.lr", 1e-4)
    newest = checkpoints(root / "training_states")[-1]
    run = train_here(changed(other, "path.resume_state", str(newest)))
    assert run.folder.root == root and run.iteration == 8
    train_here(other, auto_resume=True)  # From now on these are its options.


def test_without_the_old_options_nothing_goes_on(options: dict[str, Any]) -> None:
    run = Run(options_from_dict(options), Processes())
    run.folder.options.unlink()
    assert "no options.yml that says" in message(lambda: run.go(auto_resume=True))


def test_the_best_of_another_metric_does_not_count(options: dict[str, Any]) -> None:
    psnr = train_here(options, auto_resume=True).best
    assert psnr is not None and psnr.value > 5
    metrics = {"ssim": {"type": "calculate_ssim"}}
    other = train_here(
        changed(changed(options, "val.metrics", metrics), TOTAL_ITER, 12), auto_resume=True
    )
    assert other.best is not None and other.best.value < 1 and other.best.iteration == 12


def test_a_finished_generation_of_other_options_teaches_nobody(
    run_options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"total_iter": 4, "generations": 2}
    file = write_run(tmp_path, run_options(distillers=[{"type": "Output"}], train=row))
    command = ["train", "-opt", str(file), "--auto_resume"]
    assert main(command) == 0
    shutil.rmtree(tmp_path / "experiments" / "tiny")
    for change in ("train.total_iter=6", "train.optim_g.lr=1e-5"):
        assert main([*command, "--set", change]) == 2
        assert f"tiny_generation1/options.yml): {change.split('=')[0]} was" in (
            capsys.readouterr().err
        )
    assert main(command) == 0


def test_other_images_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """Of the same names, sizes in bytes and times, in the same place."""
    folder = tmp_path / "photographs"
    source = Path(options["datasets"]["train"]["dataroot_gt"])
    folder.mkdir()
    for path in source.iterdir():  # Uncompressed, so that other content has the same size.
        write_bmp(folder / f"{path.stem}.bmp", path)
    here = changed(options, "datasets.train.dataroot_gt", str(folder))
    here = changed(here, "datasets.train.cache_dir", str(tmp_path / "cache"))
    here["name"] = "here"
    first = train_here(here).origin.store.fingerprint

    status = (folder / "astronaut.bmp").stat()
    write_bmp(tmp_path / "other.bmp", source / "astronaut.png", brighter=9)
    shutil.copyfile(tmp_path / "other.bmp", folder / "astronaut.bmp")
    os.utime(folder / "astronaut.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    now = (folder / "astronaut.bmp").stat()
    assert (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)

    run = Run(options_from_dict(here), Processes())
    second = run.origin.store.fingerprint
    assert second != first, "the packed images are still the old ones"
    said = message(lambda: run.go(auto_resume=True))
    assert f"with other images so far (digest {first[:16]}) than there are now ({second[:16]})" in (
        said
    )
    assert "restore them" in said


def write_bmp(path: Path, source: Path, brighter: int = 0) -> None:
    Image.fromarray((read_image(source) // 2 + brighter).astype("uint8")).save(path)


def test_other_teacher_weights_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """In a file of the same name; weights that were saved anew in another format are the same."""
    saved = torch.load(options["path"]["pretrain_network_t"])
    file = tmp_path / "moved" / "teacher.pth"
    file.parent.mkdir()
    moved = changed(options, "path.pretrain_network_t", str(file))
    torch.save({"params_ema": saved["params"], "iteration": 7}, file)
    train_here(moved, auto_resume=True)
    saved["params"]["conv_last.bias"][0] += 1e-6
    torch.save(saved, file)
    run = Run(options_from_dict(moved), Processes())
    before, now = read_records(run.folder.records)[0]["teachers"], run.origin.teachers
    said = message(lambda: run.go(auto_resume=True))
    assert f"with other teacher weights so far (digest {before[0][:16]})" in said
    assert now[0][:16] in said and "path.pretrain_network_t.0" in said


def test_records_of_older_versions_have_no_digests(options: dict[str, Any]) -> None:
    run = Run(options_from_dict(options), Processes())
    lines = [json.loads(line) for line in run.folder.records.read_text().splitlines()]
    for record in lines:
        record.pop("fingerprint", None), record.pop("teachers", None)
    run.folder.records.write_text("".join(json.dumps(record) + "\n" for record in lines))
    assert run.go(auto_resume=True) == 0


def test_images_that_were_only_touched_leave_the_store_alone(
    photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    for path in photographs.iterdir():
        write_image(folder / path.name, read_image(path))
    first = ensure_store(tmp_path / "cache", [folder], None, 2)
    inode = (first.folder / "gt.bin").stat().st_ino
    (folder / "astronaut.png").chmod(0o600)
    second = ensure_store(tmp_path / "cache", [folder], None, 2)
    assert second.fingerprint == first.fingerprint
    assert second.index.source != first.index.source
    assert (first.folder / "gt.bin").stat().st_ino == inode


def test_a_pair_whose_source_was_replaced_is_made_anew(photographs: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in photographs.iterdir():
        write_image(source / path.name, read_image(path))
    assert prepare_pairs(source, tmp_path / "out", [2], workers=1).made == 2
    assert prepare_pairs(source, tmp_path / "out", [2], workers=1).existing == 2
    status = (source / "chelsea.png").stat()
    write_image(source / "chelsea.png", 255 - read_image(source / "chelsea.png"))
    os.utime(source / "chelsea.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    report = prepare_pairs(source, tmp_path / "out", [2], workers=1)
    assert (report.made, report.existing) == (1, 1)


def test_a_store_replaced_while_it_is_opened_is_never_a_mixture(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, new, images = tmp_path / "store", tmp_path / "new", tmp_path / "images"
    for path in photographs.iterdir():
        write_image(images / path.name, read_image(path))
    build_store(folder, [images], None, 2)
    write_image(images / "chelsea.png", 255 - read_image(images / "chelsea.png"))
    fingerprint = build_store(new, [images], None, 2).fingerprint
    load = store.StoreIndex.load

    def load_and_replace(where: Path) -> store.StoreIndex:
        index = load(where)
        if new.exists():
            folder.rename(tmp_path / "old")
            new.rename(folder)
        return index

    monkeypatch.setattr(store.StoreIndex, "load", load_and_replace)
    opened = store.open_store(folder)
    assert (opened.gt(1) == 255 - read_image(photographs / "chelsea.png")).all()
    assert opened.fingerprint == fingerprint


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_written_over_does_not_change_a_network_in_use(tmp_path: Path, suffix: str) -> None:
    """In place, that is; a file that takes another's name leaves the other one as it is."""
    network, path = build_network(STUDENT), tmp_path / f"student{suffix}"
    if suffix == ".pth":
        torch.save({"params": network.state_dict()}, path)
    else:
        save_student(path, network, StudentCard(architecture=STUDENT, scale=2))
    opened, _ = load_any(path, None if suffix == ".safetensors" else STUDENT)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.truncate(100)
    assert_same(dict(opened.state_dict()), dict(network.state_dict()))
