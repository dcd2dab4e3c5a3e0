"""The students that come with the package: found, described, and as good as they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lsfd.atomic import write_text
from lsfd.cli import main
from lsfd.config.load import load_options
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.sets import find_set
from lsfd.inference.upscaler import Upscaler
from lsfd.networks import ready
from lsfd.networks.ready_table import ReadyStudent, describe, read_ready, ready_table
from lsfd.networks.student_file import read_student
from lsfd.training.compared import final_scores
from lsfd.training.folder import RunFolder
from lsfd.training.records import read_records

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import students  # noqa: E402

RESULTS = ROOT / "results" / "students"
NAMES = list(ready.ready_students())
SETS = {"Set5", "Set14", "Urban100"}


@pytest.fixture(autouse=True)
def somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Option files name images below LSFD_DATA; tests that read those are skipped without it."""
    monkeypatch.setenv("LSFD_DATA", os.environ.get("LSFD_DATA", "/data"))


@pytest.mark.parametrize("name", NAMES)
def test_a_card_tells_all(name: str) -> None:
    student = ReadyStudent.read(name, ready.ready_students()[name])
    card = student.card
    told = (card.data, card.method, card.iterations, card.hardware, card.commit, card.limits)
    assert all(told) and card.versions and card.seed is not None
    assert card.scores.keys() == SETS
    assert name.endswith(f"-x{card.scale}")
    network, _ = read_student(ready.ready_students()[name])
    assert student.parameters == sum(value.numel() for value in network.state_dict().values())


def test_all_of_them_are_small_enough_to_keep() -> None:
    assert sum(student.size for student in read_ready()) < 30e6


def test_tables_are_those_of_the_cards() -> None:
    for scale in {student.card.scale for student in read_ready()}:
        students = [student for student in read_ready() if student.card.scale == scale]
        assert (RESULTS / f"table_x{scale}.md").read_text() == ready_table(students)


@pytest.mark.parametrize("name", [path.stem for path in (RESULTS / "records").glob("*.jsonl")])
def test_a_card_agrees_with_the_run(name: str) -> None:
    card = ReadyStudent.read(name, ready.ready_students()[name]).card
    records = read_records(RESULTS / "records" / f"{name}.jsonl", complete=True)
    assert any(record.get("commit") == card.commit for record in records)
    # The run scores in its own precision, before the weights are rounded to fp16.
    for name_of_set, psnr in final_scores(records).items():
        assert card.scores[name_of_set]["psnr_y"] == pytest.approx(psnr, abs=0.02)


@pytest.mark.skipif("LSFD_DATA" not in os.environ, reason="needs the benchmark images (LSFD_DATA)")
@pytest.mark.parametrize("name", [name for name in NAMES if "-m-" not in name])
def test_a_student_is_as_good_as_it_says(name: str) -> None:
    network, card = read_student(ready.ready_students()[name])
    means = evaluate(Upscaler(network, card.scale), find_set("Set5", None, card.scale), card.scale)
    assert means.psnr_y == pytest.approx(card.scores["Set5"]["psnr_y"], abs=0.005)
    assert means.ssim_y == pytest.approx(card.scores["Set5"]["ssim_y"], abs=0.0005)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_has_the_option_file_of_its_training(name: str) -> None:
    card = ReadyStudent.read(name, ready.ready_students()[name]).card
    options = load_options(students.OPTIONS / f"{name.replace('-', '_')}.yml").options
    teachers = ", ".join(Path(path).name for path in options.path.pretrain_network_t)
    methods = " + ".join(item.type for item in options.distillers)
    assert (card.scale, card.iterations) == (options.scale, options.train.total_iter)
    assert (card.seed, card.method) == (options.manual_seed, methods or "Plain")
    assert card.teacher == (teachers or None)
    if options.compress is None:
        network = options.network_g
        assert card.architecture == {"type": network.type, **network.arguments}


def test_a_finished_training_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr(students, "train", lambda file, *_, **__: begun.append(file.stem) or 130)
    where = [f"path.experiments_root={tmp_path}"]
    with pytest.raises(SystemExit):
        students.trained("edsr-xs-x4", where)
    assert begun == ["edsr_xs_x4"]
    folder = RunFolder(tmp_path / "edsr_xs_x4")
    folder.root.mkdir()
    folder.student.touch()
    write_text(folder.options, load_options(students.OPTIONS / "edsr_xs_x4.yml", where).to_yaml())
    assert students.trained("edsr-xs-x4", where).student == folder.student
    assert begun == ["edsr_xs_x4"]
    with pytest.raises(LsfdError, match=r"begun with other options .*total_iter was 40000"):
        students.trained("edsr-xs-x4", [*where, "train.total_iter=7"])


def test_a_card_names_the_changes_that_made_a_student() -> None:
    free = ["path.experiments_root=elsewhere", "datasets.train.cache_dir=there"]
    assert students.changes(free) == []
    assert students.changes([*free, "train.total_iter=9"]) == ["--set", "train.total_iter=9"]


def test_a_folder_does_not_hide_a_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAMES[0]).mkdir()
    assert ready.find_weights(NAMES[0]) == ready.ready_students()[NAMES[0]]
    Path(NAMES[1]).touch()
    assert ready.find_weights(NAMES[1]) == Path(NAMES[1])


def test_an_image_that_a_picture_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "read_ready", list)
    monkeypatch.setattr(students, "find_set", lambda *_: [("baby", None, None)])
    with pytest.raises(LsfdError, match="Set5 below LSFD_DATA has no image 'butterfly'"):
        students.draw_pictures(4)


def test_the_command_lists_and_describes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["students"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    assert main(["students", NAMES[0]]) == 0
    told = capsys.readouterr().out
    assert "seed " in told and "limits" in told and "Set14 (PSNR-Y / SSIM-Y)" in told
    with pytest.raises(LsfdError, match=f"did you mean '{NAMES[0]}'"):
        describe(NAMES[0].replace("-", "", 1))
