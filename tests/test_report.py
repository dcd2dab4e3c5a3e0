"""``lsfd report``: from the folders of runs to one file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from option_texts import message

from lsfd.config.load import options_from_dict
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.imaging.resize import modcrop
from lsfd.reporting.report_contents import Report
from lsfd.training import report as module
from lsfd.training.distributed import Processes
from lsfd.training.finished import read_runs
from lsfd.training.records import read_records
from lsfd.training.report import report
from lsfd.training.run import Run

Options = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is not measured: that takes long, and is another test's subject."""
    monkeypatch.setattr(
        "lsfd.training.report_models.seconds_per_megapixel",
        lambda upscales, scale, runs: {name: 0.25 for name in upscales},
    )


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """Collect what is written, so that a test can ask what is in it."""
    written: list[Report] = []
    write = module.write_report

    def keep(path: Path, given: Report) -> int:
        written.append(given)
        return write(path, given)

    monkeypatch.setattr(module, "write_report", keep)
    return written


@pytest.fixture
def trained(run_options: Options) -> Callable[..., Path]:
    """A function that trains a tiny run and returns its folder."""

    def train(name: str = "tiny", **sections: Any) -> Path:
        run = Run(options_from_dict(run_options(name=name, **sections)), Processes())
        assert run.go(auto_resume=False) == 0
        return run.folder.root

    return train


def labels(given: Report, group: str) -> list[str]:
    return [view.label for view in given.pictures[0].views if view.group == group]


def test_two_runs_side_by_side(
    trained: Callable[..., Path], contents: list[Report], photographs: Path
) -> None:
    folders = [trained("mine"), trained("plain", distillers=[{"type": "Plain"}])]
    said = report(folders, device="cpu")
    path = folders[0].parent / "report.html"
    assert said.startswith(f"{path}: 2 runs, 2 pictures, 0.")
    (given,) = contents
    assert [model.name for model in given.models] == ["bicubic", "mine", "plain", "teacher"]
    assert {model.teacher for model in given.models if model.role == "student"} == {"teacher"}
    losses = set(given.runs[0].losses)
    assert losses == {"l_pix", "l_lsfd_feature", "l_lsfd_output"}
    page = path.read_text()
    assert all(name in page for name in losses)
    # The last validation had the same weights; what is measured here must equal it.
    last = [
        record for record in read_records(folders[0] / "metrics.jsonl") if record["kind"] == "val"
    ]
    assert given.models[1].scores["photographs"][0] == pytest.approx(last[-1]["scores"]["psnr"])
    assert [picture.name for picture in given.pictures] == ["astronaut", "chelsea"]
    images = labels(given, "Images")
    assert images == ["low resolution", "bicubic", "mine", "plain", "teacher", "ground truth"]
    truth = given.pictures[0].views[5].image
    assert (truth == modcrop(read_image(photographs / "astronaut.png"), 2)).all()
    minus = "\N{MINUS SIGN}"
    differences = labels(given, "Differences")
    assert f"|mine {minus} truth|" in differences and f"|plain {minus} teacher|" in differences
    shown = {view.label: view for view in given.pictures[0].views}
    error = np.abs(shown["mine"].image.astype(float) - truth).mean(axis=2)
    np.testing.assert_allclose(shown[f"|mine {minus} truth|"].image, error, rtol=1e-5)
    attention = labels(given, "Attention")
    assert attention == ["mine: body.0_body.1", "mine: body.1_body.3", "mine: conv_after_body"]
    assert shown[attention[0]].image.shape == (64, 80)


def test_reporting_changes_nothing_in_the_runs(
    trained: Callable[..., Path], tmp_path: Path
) -> None:
    folder = trained()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report([folder], tmp_path / "out" / "page.html", pictures=1, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_report_of_one_run_lies_in_its_folder(
    trained: Callable[..., Path], contents: list[Report]
) -> None:
    folder = trained()
    said = report([folder], sets=[])
    assert said.startswith(f"{folder / 'report.html'}: 1 run, 0 pictures")
    assert not contents[0].models and contents[0].runs[0].losses


def test_sets_by_name_and_a_number_of_pictures(
    trained: Callable[..., Path], contents: list[Report], photographs: Path, tmp_path: Path
) -> None:
    shutil.copytree(photographs, tmp_path / "data" / "Other" / "HR")
    folder = trained()
    report([folder], sets=["Other", str(photographs)], root=tmp_path / "data", pictures=3)
    assert contents[0].sets == ["Other", photographs.name]
    pictures = [(picture.source.split(",")[0], picture.name) for picture in contents[0].pictures]
    assert pictures == [
        ("Other", "astronaut"), ("Other", "chelsea"), (photographs.name, "astronaut"),
    ]  # fmt: skip


def test_large_pictures_are_cut(
    trained: Callable[..., Path], contents: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsfd.training.report_pictures.SMALLEST", 40)
    monkeypatch.setattr("lsfd.training.report_pictures.MOST_PIXELS", 1)
    report([trained()], pictures=1)
    (picture,) = contents[0].pictures
    views = {view.label: view.image for view in picture.views}
    assert {views[name].shape for name in ("bicubic", "tiny", "ground truth")} == {(40, 40, 3)}
    assert views["low resolution"].shape == (20, 20, 3)
    assert views["tiny: conv_after_body"].shape == (20, 20)
    assert "40 × 40 pixels of 160 × 128" in picture.source  # noqa: RUF001
    # The parts belong together: enlarged, the input is like the truth.
    enlarged = np.kron(views["low resolution"].astype(float), np.ones((2, 2, 1)))
    assert np.abs(enlarged - views["ground truth"]).mean() < 20


def test_what_is_missing_is_said(
    trained: Callable[..., Path], contents: list[Report], teacher_file: Path
) -> None:
    folder = trained()
    options = folder / "options.yml"
    options.write_text(options.read_text().replace(teacher_file.name, "gone.pth"))
    (folder / "tiny.safetensors").unlink()
    report([folder], pictures=1)
    (given,) = contents
    notes = " ".join(given.notes)
    assert "teacher gone.pth is left out" in notes
    assert "student is that of the last checkpoint" in notes
    assert "attention of tiny is not shown" in notes
    assert [model.name for model in given.models] == ["bicubic", "tiny"]
    shutil.rmtree(folder / "training_states")
    shutil.rmtree(folder / "models")
    report([folder], pictures=1)
    assert "tiny has no student yet" in " ".join(contents[1].notes)
    assert [model.name for model in contents[1].models] == ["bicubic"]


def test_a_renamed_folder_is_still_a_run(
    trained: Callable[..., Path], contents: list[Report]
) -> None:
    folder = trained()
    moved = folder.rename(folder.with_name("tiny_archived"))
    report([moved], pictures=0)
    assert [model.name for model in contents[0].models] == ["bicubic", "tiny_archived", "teacher"]
    assert not any("last checkpoint" in note for note in contents[0].notes)


@pytest.fixture
def written(run_options: Options, tmp_path: Path) -> Path:
    """The folder of a run of which only options and records are left."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "options.yml").write_text(options_from_dict(run_options(name="mine")).to_yaml())
    write_records(folder, {"kind": "train", "iteration": 1, "losses": {"l_pix": 0.5}})
    return folder


def write_records(folder: Path, *records: Any) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines)


DAMAGED = [
    [5],
    [{"kind": "train", "losses": {"l_pix": 0.5}}],
    [{"kind": "train", "iteration": 1, "losses": {"l_pix": "x"}}],
    [{"kind": "train", "iteration": 1, "losses": [1]}],
    [{"kind": "train", "iteration": float("inf"), "losses": {"l_pix": 1.0}}],
    [{"kind": "val", "iteration": 1, "scores": {"psnr": 30.0}}],
    [{"kind": "val", "iteration": 1, "set": ["Set5"], "scores": {"psnr": 30.0}}],
    [{"kind": "run", "versions": 7}, {"kind": "train", "iteration": 1, "losses": {"l_pix": 1.0}}],
]


@pytest.mark.parametrize("records", DAMAGED)
def test_damaged_records_end_in_one_sentence(written: Path, records: list[Any]) -> None:
    write_records(written, *records)
    assert "metrics.jsonl is damaged" in message(read_runs, [written])


def test_what_is_no_run_ends_in_one_sentence(written: Path, tmp_path: Path) -> None:
    assert "not the folder of a run" in message(report, [tmp_path])
    assert "not the folder of a run" in message(report, [tmp_path / "nowhere"])
    assert "is named twice" in message(report, [written, written.parent / "mine"])
    write_records(written)
    assert "holds no losses and no scores" in message(report, [written])
    (written / "metrics.jsonl").unlink()
    assert "holds no losses and no scores" in message(report, [written])
    (written / "options.yml").write_text("name: [")
    assert "options.yml" in message(report, [written])
    assert not list(written.glob("*.html"))


def test_a_damaged_student_ends_in_one_sentence(written: Path) -> None:
    (written / "mine.safetensors").write_bytes(b"no weights")
    assert "mine.safetensors" in message(report, [written])
    assert not list(written.glob("*.html"))


def test_mistakes_of_the_command_end_in_one_sentence(
    written: Path, run_options: Options, tmp_path: Path
) -> None:
    assert "--pictures -1" in message(lambda: report([written], pictures=-1))
    # Before the missing set: a mistake shows before minutes of scoring.
    assert "report.txt" in message(lambda: report([written], written / "report.txt", sets=["x"]))
    other = tmp_path / "elsewhere" / "mine"
    shutil.copytree(written, other)
    assert "name the report's file with -o" in message(report, [written, other])
    text = (other / "options.yml").read_text()
    (other / "options.yml").write_text(re.sub("scale: 2\n", "scale: 3\n", text))
    assert "different factors" in message(report, [written, other])


def test_validation_images_that_are_gone_are_said_with_what_to_do(
    written: Path, photographs: Path
) -> None:
    options = written / "options.yml"
    options.write_text(options.read_text().replace(str(photographs), "/nowhere"))
    assert "--sets" in message(report, [written])
    assert report([written], sets=[])


def test_runs_of_one_name_are_told_apart(
    written: Path, contents: list[Report], tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path / "again" / "mine")
    report([written, tmp_path / "again" / "mine"], tmp_path / "page.html", sets=[])
    assert [run.name for run in contents[0].runs] == ["runs/mine", "again/mine"]
    assert contents[0].title == "runs/mine and again/mine"


def test_a_cut_off_line_is_left_out(written: Path) -> None:
    with (written / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "iterat')
    (run,) = read_runs([written])
    assert run.losses == {"l_pix": {1: 0.5}}
    assert dict(run.facts)["iterations"] == "1 of 12"
    with pytest.raises(LsfdError):
        read_runs([written.parent])
