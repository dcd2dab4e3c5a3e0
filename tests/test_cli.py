"""The command line: what each verb prints and writes, and how mistakes end."""

from __future__ import annotations

import errno
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_options

from lsfd.cli import exit_status, main
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.training.checkpoint import checkpoints
from lsfd.training.folder import RunFolder
from lsfd.training.records import read_records

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / "lsfd" / "train.py", ROOT / "lsfd" / "test.py"]
VERBS = ["prepare", "train", "test", "benchmark", "score", "upscale", "compress"]
MEANS = {"psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"}

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def option_file(run_options: Options, tmp_path: Path) -> Path:
    return write_options(tmp_path / "options.yml", run_options())


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of the run of ``option_file``."""
    return RunFolder(tmp_path / "experiments" / "tiny")


@pytest.fixture
def student(run_options: Options, tmp_path: Path) -> Path:
    """The file of a student with random weights, x2."""
    architecture = run_options()["network_g"]
    path = tmp_path / "student.safetensors"
    save_student(path, build_network(architecture), StudentCard(architecture=architecture, scale=2))
    return path


def set_means(file: Path, name: str) -> dict[str, Any]:
    """Return a set's scores from a JSON file after checking the shape that all verbs share."""
    scores: dict[str, Any] = json.loads(file.read_text())["sets"][name]
    assert scores.keys() == MEANS | {"images"}
    for means in scores["images"].values():
        assert means.keys() == MEANS
    count = len(scores["images"])
    mean = sum(image["psnr_y"] for image in scores["images"].values()) / count
    assert scores["psnr_y"] == pytest.approx(mean)
    return scores


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from lsfd.cli import exit_status, main
from lsfd.errors import LsfdError
try:
    main(["--help"])
finally:
    assert not {"torch", "numpy", "pydantic", "yaml", "basicsr"} & sys.modules.keys()
"""
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(verb in shown.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([verb, "--help"])
    assert exit_info.value.code == 0
    assert f"usage: lsfd {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_run_from_anywhere(script: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = subprocess.run(
        # -S leaves site-packages out, and with it an installed lsfd.
        [sys.executable, "-S", str(script), "--help"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"usage: lsfd {script.stem}" in shown.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_shadow_no_modules(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As Python starts a script: its folder, where "data" and "test" lie, comes first.
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    assert sys.path[0] == str(ROOT)
    assert str(script.parent) not in sys.path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train -opt {options} --set train.total_itr=3", "did you mean 'total_iter'?"),
        ("train -opt {here}/none.yml", "none.yml"),
        ("train -opt {options} --set path.pretrain_network_t={here}/none.pth", "none.pth"),
        ("train -opt {options} --set datasets.val.dataroot_gt={here}/none", "none does not exist"),
        ("train -opt {options} --set path.experiments_root={options}", "the run's folder"),
        ("train -opt {options} --launcher pytorch", "start with torchrun"),
        ("test -opt {options}", "train {options} to its end first"),
        ("benchmark --sets Set6 --scale 2 --data {here}", "Set6"),
        ("benchmark --weights {here}/none.safetensors --sets {photos} --scale 2", "none.safet"),
        ("score --sr {here} --hr {photos} --scale 2", "without counterpart"),
        ("upscale -i {photos} -o {here}/out -w {here}/none.safetensors", "none.safetensors"),
        ("upscale -i {here}/none -o {here}/out -w {student}", "none does not exist"),
        ("upscale -i {photos} -o {here}/out -w {here}", "is a folder; give a file in it"),
        ("prepare -i {here}/none -o {here}/out", "none does not exist"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    arguments: str,
    sentence: str,
    option_file: Path,
    student: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    places = {"options": option_file, "here": tmp_path, "photos": photographs, "student": student}
    assert main([part.format(**places) for part in arguments.split()]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("lsfd: ") and printed.count("\n") == 1
    assert sentence.format(**places) in printed


def test_a_disk_that_fails_anywhere_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere/x.bin")

    monkeypatch.setattr("lsfd.training.methods.methods_table", fail)
    assert main(["methods"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("lsfd: somewhere/x.bin: No space left on device; ")
        and said.count("\n") == 1
    )
    assert "free space there" in said


def test_a_name_that_is_too_long_ends_in_one_sentence(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x" * 300
    for command in (["-i", name, "-w", str(student)], ["-i", str(tmp_path), "-w", name]):
        assert main(["upscale", *command, "-o", str(tmp_path / "out")]) == 2
        assert "File name too long; choose another name\n" in capsys.readouterr().err


def test_a_mistake_leaves_the_script_with_status_2(option_file: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPTS[0], "-opt", option_file, "--set", "network_g.num_fet=8"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("lsfd: ") and ended.stderr.count("\n") == 1
    sentence = "override network_g.num_fet=8: EDSR has no such argument; did you mean 'num_feat'?"
    assert sentence in ended.stderr


@pytest.mark.parametrize(
    "override",
    [
        ["--set", "train.total_iter=3", "logger.print_freq=1"],
        ["--force_yml", "train:total_iter=3", "logger:print_freq=1"],
        ["--set", "train.total_iter=3", "--force_yml", "logger:print_freq=1"],
    ],
)
def test_overrides_reach_the_run(override: list[str], option_file: Path, folder: RunFolder) -> None:
    assert main(["train", "-opt", str(option_file), *override]) == 0
    records = [r for r in read_records(folder.records) if r["kind"] == "train"]
    assert [record["iteration"] for record in records] == [1, 2, 3]
    # What ran is what is written down: the same again, without the overrides.
    assert main(["train", "-opt", str(folder.options)]) == 0
    assert read_student(folder.student)[1].iterations == 3


def test_debug_reports_everything_under_another_name(option_file: Path, folder: RunFolder) -> None:
    assert main(["train", "-opt", str(option_file), "--debug", "--set", "train.total_iter=17"]) == 0
    assert not folder.root.exists()
    debugged = RunFolder(folder.root.with_name("debug_tiny"))
    records = read_records(debugged.records)
    steps = [record["iteration"] for record in records if record["kind"] == "train"]
    assert steps == list(range(1, 18))
    assert [r["iteration"] for r in records if r["kind"] == "val"] == [8, 16, 17]
    assert [path.name for path in checkpoints(debugged.states)] == ["17.state", "16.state"]


def test_auto_resume_goes_on(
    option_file: Path, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "-opt", str(option_file), "--auto_resume", "--set"]
    assert main([*train, "train.total_iter=6"]) == 0
    assert main([*train, "train.total_iter=12"]) == 0
    assert "going on from iteration 6" in capsys.readouterr().out
    records = read_records(folder.records)
    assert [r["resumed"] for r in records if r["kind"] == "run"] == [False, True]
    assert read_student(folder.student)[1].iterations == 12


def test_the_test_verb_scores_the_finished_student(
    option_file: Path, folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-opt", str(option_file)]) == 0
    validated = read_records(folder.records)[-1]["scores"]["psnr"]
    capsys.readouterr()
    file, pictures = tmp_path / "scores.json", tmp_path / "pictures"
    arguments = ["-opt", str(option_file), "--json", str(file), "--pictures", str(pictures)]
    assert main(["test", *arguments]) == 0
    assert set_means(file, "photographs")["psnr_y"] == pytest.approx(validated, abs=1e-3)
    table = capsys.readouterr().out
    assert "bicubic" in table and "tiny" in table and f"{validated:.2f}" in table
    found = sorted(path.relative_to(pictures) for path in pictures.rglob("*.png"))
    assert found == [
        Path("photographs", model, f"{image}.png")
        for model in ("bicubic", "tiny")
        for image in ("astronaut", "chelsea")
    ]


def test_prepare_then_benchmark_then_upscale_then_score(
    photographs: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "Photos"
    prepare = ["prepare", "-i", str(photographs), "-o", str(pairs), "--scale", "2", "4"]
    assert main([*prepare, "--workers", "1"]) == 0
    assert "2" in capsys.readouterr().out
    for name, shape in (
        ("HR", (128, 160)),
        ("LR_bicubic/X2", (64, 80)),
        ("LR_bicubic/X4", (32, 40)),
    ):
        images = sorted((pairs / name).iterdir())
        assert [path.name for path in images] == ["astronaut.png", "chelsea.png"]
        assert all(read_image(path).shape[:2] == shape for path in images)

    file, pictures = tmp_path / "benchmark.json", tmp_path / "pictures"
    options = ["--sets", "Photos", "--scale", "2", "--data", str(tmp_path), "--device", "cpu"]
    results = ["--json", str(file), "--pictures", str(pictures)]
    assert main(["benchmark", "--weights", str(student), *options, *results]) == 0
    benchmarked = set_means(file, "Photos")
    assert json.loads(file.read_text())["models"].keys() == {"bicubic", "student"}

    upscaled = tmp_path / "upscaled"
    arguments = ["-i", str(pairs / "LR_bicubic" / "X2"), "-o", str(upscaled), "-w", str(student)]
    exact = ["--device", "cpu", "--precision", "fp32", "--suffix", "x2"]
    assert main(["upscale", *arguments, *exact]) == 0
    for image in ("astronaut", "chelsea"):
        expected = read_image(pictures / "Photos" / "student" / f"{image}.png")
        assert np.array_equal(read_image(upscaled / f"{image}x2.png"), expected)

    file = tmp_path / "score.json"
    arguments = ["--sr", str(upscaled), "--hr", str(pairs / "HR"), "--scale", "2"]
    assert main(["score", *arguments, "--json", str(file)]) == 0
    assert set_means(file, "Photos") == benchmarked


@pytest.mark.parametrize(("other", "status"), [("notes.txt", 0), ("bad.png", 1)])
def test_upscale_fails_for_a_damaged_image_only(
    other: str,
    status: int,
    student: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "good.png").write_bytes((photographs / "chelsea.png").read_bytes())
    (source / other).write_bytes(b"no image")
    assert main(["upscale", "-i", str(source), "-o", str(out), "-w", str(student)]) == status
    assert [path.name for path in out.iterdir()] == ["good.png"]
    assert other in capsys.readouterr().out


def test_prepare_writes_the_embedded_photographs(tmp_path: Path) -> None:
    assert main(["prepare", "--embedded", "-o", str(tmp_path)]) == 0
    train, val = ({path.name for path in (tmp_path / s / "HR").iterdir()} for s in ("train", "val"))
    assert train and val and not train & val


@pytest.mark.skipif(
    "LSFD_DATA" not in os.environ,
    reason="set LSFD_DATA to the folder of real images (see datasets/README.md)",
)
def test_score_reproduces_a_published_result(tmp_path: Path) -> None:
    data, file = Path(os.environ["LSFD_DATA"]), tmp_path / "scores.json"
    folders = ["--sr", str(data / "golden/rcan_x4"), "--hr", str(data / "benchmarks/Set5/HR")]
    assert main(["score", *folders, "--scale", "4", "--json", str(file)]) == 0
    scores = set_means(file, "Set5")
    assert f"{scores['psnr_y']:.2f} {scores['ssim_y']:.4f}" == "32.63 0.9002"


def test_a_script_ends_like_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise LsfdError("the disk has hiccups; wait")

    assert exit_status("students", work) == 2
    assert capsys.readouterr().err == "students: the disk has hiccups; wait\n"
    assert exit_status("students", lambda: None) == 0
    assert exit_status("students", lambda: 3) == 3


@pytest.mark.parametrize("option", ["--scale 2", "--workers 1"])
@pytest.mark.parametrize("source", ["--embedded -o out", "--download Set5 -o out", "--check out"])
def test_prepare_refuses_what_it_would_not_heed(
    source: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *source.split(), *option.split()]) == 2
    assert "--scale and --workers go with -i" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_mistake() -> None:
    """As in ``lsfd methods | head -1``."""
    program = (
        "import sys; from lsfd.cli import exit_status; "
        "sys.exit(exit_status('lsfd', lambda: print('x' * 10**6, flush=True)))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_another_pipe_that_broke_is_not_hidden() -> None:
    def work() -> int:
        raise BrokenPipeError(errno.EPIPE, "of a worker")

    with pytest.raises(BrokenPipeError, match="of a worker"):
        exit_status("lsfd", work)
