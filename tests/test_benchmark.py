from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import benchmark, benchmark_sets, bicubic, evaluate
from lsfd.evaluation.cost import (
    PAPER_OUTPUT,
    Cost,
    bytes_per_megapixel,
    seconds_per_megapixel,
)
from lsfd.evaluation.report import BenchmarkReport, BenchmarkRow
from lsfd.evaluation.scores import ImageScores, SetScores
from lsfd.evaluation.sets import find_set, set_from_folders
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.resize import downscale, upscale
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.image import psnr
from lsfd.networks.student_file import StudentCard, save_student
from lsfd.reporting.latex import escape

needs_data = pytest.mark.skipif(
    "LSFD_DATA" not in os.environ,
    reason="set LSFD_DATA to the folder of real images (see datasets/README.md)",
)
ARCHITECTURE = {
    "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 2,
}  # fmt: skip


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    return upscale(coarse.astype(np.uint8), 4)[:height, :width]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with one set of two images, whose sizes are no multiple of 2."""
    hr = tmp_path / "data" / "benchmarks" / "Tiny" / "HR"
    write_image(hr / "ape.png", picture(33, 41, 0))
    write_image(hr / "bee.png", picture(36, 30, 1))
    return tmp_path / "data"


def student(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = EDSR(**{key: value for key, value in ARCHITECTURE.items() if key != "type"})
    save_student(path, network, StudentCard(architecture=ARCHITECTURE, scale=2))
    return path


@needs_data
def test_bicubic_scores_what_papers_publish() -> None:
    scores = evaluate(bicubic(4), find_set("Set5", None, 4), 4)
    assert scores.psnr_y == pytest.approx(28.42, abs=0.011)


def test_inputs_are_made_as_matlab_would(root: Path) -> None:
    found = find_set("Tiny", root, 2)
    assert (found.name, found.scale, len(found)) == ("Tiny", 2, 2)
    (name, lq, hr), second = found
    assert name == "ape"
    assert np.array_equal(hr, picture(33, 41, 0)[:32, :40])
    assert np.array_equal(lq, downscale(hr, 2))
    assert second[0] == "bee"


@pytest.mark.parametrize("ending", ["", "x2"])
def test_prepared_inputs_are_used(root: Path, ending: str) -> None:
    folder = root / "benchmarks" / "Tiny" / "LR_bicubic" / "X2"
    write_image(folder / f"ape{ending}.png", picture(16, 20, 7))
    with pytest.raises(LsfdError, match=r"bee\.png has no input in .*X2"):
        find_set("Tiny", root, 2)
    write_image(folder / f"bee{ending}.png", picture(18, 14, 8))
    pairs = iter(find_set("Tiny", root, 2))
    assert np.array_equal(next(pairs)[1], picture(16, 20, 7))
    with pytest.raises(LsfdError, match=r"bee.*\.png has 14x18 pixels; .* needs 15x18"):
        next(pairs)
    assert np.array_equal(next(iter(find_set("Tiny", root, 4)))[1].shape, (8, 10, 3))


def test_a_set_is_found_by_name_and_by_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "benchmarks" / "Tiny"
    by_name = find_set("Tiny", root, 2)
    assert find_set(str(folder), None, 2) == by_name
    assert find_set(str(folder / "HR"), None, 2) == by_name
    assert find_set("Tiny", root / "benchmarks", 2) == by_name
    monkeypatch.setenv("LSFD_DATA", str(root))
    assert find_set("Tiny", None, 2) == by_name
    (folder / "HR").rename(root / "photos")
    assert find_set(str(root / "photos"), None, 2).name == "photos"


def test_a_missing_set_says_what_there_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LsfdError) as raised:
        find_set("tiny", root, 2)
    message = str(raised.value)
    assert str(root / "benchmarks" / "tiny" / "HR") in message
    assert "has Tiny; did you mean 'Tiny'?" in message
    assert "lsfd prepare --download tiny" in message
    monkeypatch.delenv("LSFD_DATA", raising=False)
    with pytest.raises(LsfdError, match="set the environment variable LSFD_DATA"):
        find_set("Tiny", None, 2)


@pytest.mark.parametrize("script", ["stmp.py", "bench/scoring.py", "soak/creep.py upscale"])
def test_scripts_say_that_they_need_the_images(script: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "LSFD_DATA"}
    file, *arguments = script.split()
    found = subprocess.run(
        [sys.executable, Path(__file__).parent.parent / "scripts" / file, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    sentence = "set the environment variable LSFD_DATA to the folder that holds train/"
    assert found.stderr.startswith(f"{Path(file).stem}: {sentence}")


def test_sets_from_folders(root: Path, tmp_path: Path) -> None:
    hr = root / "benchmarks" / "Tiny" / "HR"
    write_image(tmp_path / "more" / "cow.png", picture(20, 20, 2))
    found = set_from_folders("All", [hr, tmp_path / "more"], [], 2)
    assert [name for name, _, _ in found] == ["ape", "bee", "cow"]
    with pytest.raises(LsfdError, match="have the same name"):
        set_from_folders("All", [hr, hr], [], 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LsfdError, match="no image in"):
        set_from_folders("None", [tmp_path / "empty"], [], 2)


def test_evaluate_scores_each_image_without_its_border(root: Path) -> None:
    seen = {}
    found = find_set("Tiny", root, 2)
    scores = evaluate(bicubic(2), found, 2, on_image=lambda name, sr: seen.update({name: sr}))
    for name, lq, hr in found:
        assert np.array_equal(seen[name], upscale(lq, 2))
        assert scores.images[name].psnr_y == psnr(seen[name], hr, 2)
    assert list(scores.images) == ["ape", "bee"]
    assert scores.psnr_y == np.mean([image.psnr_y for image in scores.images.values()])


def test_evaluate_names_the_image_that_cannot_be_scored(root: Path) -> None:
    found = find_set("Tiny", root, 2)
    with pytest.raises(LsfdError, match="Tiny/ape: only images of one shape"):
        evaluate(bicubic(4), found, 2)
    with pytest.raises(LsfdError, match="made for x2, not x4"):
        evaluate(bicubic(4), found, 4)


def test_a_perfect_upscaler_does_not_poison_the_mean(root: Path) -> None:
    found = find_set("Tiny", root, 2)
    (_, first_lq, first_hr), _ = found

    def knows_the_first(lq: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return first_hr if np.array_equal(lq, first_lq) else upscale(lq, 2)

    scores = evaluate(knows_the_first, found, 2)
    assert scores.images["ape"].psnr_y == math.inf
    assert scores.psnr_y == scores.images["bee"].psnr_y
    assert scores.identical == 1


def test_benchmark_of_two_networks(root: Path, tmp_path: Path) -> None:
    first = student(tmp_path / "run1" / "small.safetensors")
    second = student(tmp_path / "run2" / "other.safetensors", seed=1)
    pictures = tmp_path / "pictures"
    report = benchmark([first, second], ["Tiny"], 2, root=root, device="cpu", pictures=pictures)
    result = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(result["models"]) == ["bicubic", "small", "other"]
    assert result["scale"] == 2
    assert result["versions"]["torch"] == torch.__version__
    assert result["sets"] == result["models"]["other"]["sets"]
    assert result["models"]["bicubic"]["parameters"] == 0
    small = result["models"]["small"]
    # Head, 4 convolutions in blocks, body tail, upsampler to 32 channels, last at 4 x the pixels.
    weights = [3 * 8 * 9, *[8 * 8 * 9] * 5, 8 * 32 * 9, 8 * 3 * 9]
    assert small["parameters"] == sum(weights) + 8 + 8 * 5 + 32 + 3
    assert small["multiply_adds"] == 640 * 360 * (sum(weights) + 3 * weights[-1])

    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=8, num_block=2, upscale=2)
    expected = evaluate(Upscaler(network, 2, "cpu"), find_set("Tiny", root, 2), 2)
    assert small["sets"] == expected.to_json()["sets"]
    lq = next(iter(find_set("Tiny", root, 2)))[1]
    saved = read_image(pictures / "Tiny" / "small" / "ape.png")
    assert np.array_equal(saved, Upscaler(network, 2, "cpu")(lq))
    assert {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")} == {
        f"Tiny/{model}/{name}.png"
        for model in ("bicubic", "small", "other")
        for name in ("ape", "bee")
    }


def test_weights_that_do_not_describe_themselves(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=8, num_block=2, upscale=2)
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    found = find_set("Tiny", root, 2)
    report = benchmark_sets([tmp_path / "net.pth"], [found], 2, options=ARCHITECTURE, device="cpu")
    assert report.rows[1].scores == (evaluate(Upscaler(network, 2, "cpu"), found, 2),)


def test_models_of_one_name_are_told_apart(root: Path, tmp_path: Path) -> None:
    paths = [student(tmp_path / run / "student.safetensors") for run in ("a", "b")]
    report = benchmark(paths, ["Tiny"], 2, root=root, device="cpu")
    assert [row.name for row in report.rows] == ["bicubic", "a_student", "b_student"]
    with pytest.raises(LsfdError, match="two models have the same name: a_student"):
        benchmark([paths[0], paths[0]], ["Tiny"], 2, root=root)
    with pytest.raises(LsfdError, match="two sets have the same name: Tiny"):
        benchmark([], ["Tiny", str(root / "benchmarks" / "Tiny")], 2, root=root)


def test_a_network_of_another_scale_is_refused(root: Path, tmp_path: Path) -> None:
    path = student(tmp_path / "small.safetensors")
    with pytest.raises(LsfdError, match=r"small\.safetensors enlarges x2, .* for x3"):
        benchmark([path], ["Tiny"], 3, root=root)


def test_without_weights_there_is_bicubic(root: Path) -> None:
    result = benchmark([], ["Tiny"], 2, root=root).to_json()
    assert list(result["models"]) == ["bicubic"]
    assert result["sets"]["Tiny"]["psnr_y"] > 20


def test_markdown() -> None:
    good = SetScores("Set5", {"a": ImageScores(32.634, 0.90024, 30.7, 0.87)})
    half = SetScores(
        "Set5",
        {"a": ImageScores(30, 0.9, 28, 0.8), "b": ImageScores(math.inf, 1.0, math.inf, 1.0)},
    )
    rows = (
        BenchmarkRow("bicubic", Cost(), (half,)),
        BenchmarkRow("net", Cost(1517571, int(114e9)), (good,)),
    )
    lines = BenchmarkReport(4, rows).to_markdown().splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "| x4 | parameters | G multiply-adds | Set5 PSNR / SSIM (Y) |",
        "| ------- | ---------: | --------------: | -------------------- |",
        "| bicubic | - | - | 30.00 / 0.9500 * |",
        "| net | 1,517,571 | 114.0 | 32.63 / 0.9002 |",
        "",
        "| x4 | parameters | G multiply-adds | Set5 PSNR / SSIM (RGB) |",
        "| ------- | ---------: | --------------: | ---------------------- |",
        "| bicubic | - | - | 28.00 / 0.9000 * |",
        "| net | 1,517,571 | 114.0 | 30.70 / 0.8700 |",
        "",
        "\\* bicubic on Set5: 1 of 2 images are identical to the original; their infinite PSNR is "
        "not in the mean.",
    ]


def test_costs_are_measured(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsfd.evaluation.cost.PAPER_OUTPUT", (48, 64))
    path = student(tmp_path / "small.safetensors")
    report = benchmark([path], ["Tiny"], 2, root=root, device="cpu", runs=2)
    result = report.to_json()["models"]
    assert result["bicubic"]["seconds"] > 0
    assert result["small"]["seconds"] > 0
    assert "bytes" not in result["bicubic"]
    if Path("/proc/self/status").exists():
        assert result["small"]["bytes"] >= 0
        assert "MB/megapixel" in report.to_markdown()
    assert "s/megapixel" in report.to_markdown()


def takes_memory(megabytes: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    def run(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if len(image) > 24:  # Not while it warms up.
            np.ones(megabytes << 20, np.uint8)
        return image

    return run


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
def test_memory_at_the_peak_is_seen() -> None:
    megapixels = PAPER_OUTPUT[0] * PAPER_OUTPUT[1] / 1e6
    small, large = (
        bytes_per_megapixel(takes_memory, (size,), 1, torch.device("cpu")) for size in (8, 208)
    )
    assert small is not None
    assert large is not None
    assert (large - small) * megapixels == pytest.approx(200 << 20, rel=0.05)


def test_each_round_times_every_upscaler() -> None:
    calls: list[str] = []

    def upscale(name: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        calls.append(name)
        return image

    upscales = {name: partial(upscale, name) for name in "ab"}
    seconds = seconds_per_megapixel(upscales, 4, runs=2)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.abs(first.astype(float) - second).mean())


def test_lpips_is_seen_inside_the_border_and_only_where_it_fits() -> None:
    sr = np.zeros((40, 40, 3), np.uint8)
    hr = sr.copy()
    hr[4:-4, 4:-4] = 3
    assert ImageScores.of(sr, hr, 4, distance).lpips == 3
    assert ImageScores.of(sr, hr, 5, distance).lpips is None
    assert ImageScores.of(sr, hr, 4).lpips is None


def test_tables_with_everything() -> None:
    def scores(psnr_y: float, lpips: float) -> tuple[SetScores, ...]:
        return (SetScores("Set5", {"a": ImageScores(psnr_y, 0.9, 28, 0.8, lpips)}),)

    rows = (
        BenchmarkRow("bicubic", Cost(0, 0, 0.1), scores(30, 0.3)),
        BenchmarkRow("my_net", Cost(1517571, int(114e9), 1.25, 3e8), scores(32.634, 0.2)),
    )
    report = BenchmarkReport(4, rows)
    luma = report.to_markdown().splitlines()
    assert [" ".join(line.split()) for line in luma[:4]] == [
        "| x4 | parameters | G multiply-adds | s/megapixel | MB/megapixel "
        "| Set5 PSNR / SSIM (Y) / LPIPS |",
        "| ------- | ---------: | --------------: | ----------: | -----------: "
        "| ---------------------------- |",
        "| bicubic | - | - | 0.10 | - | 30.00 / 0.9000 / 0.3000 |",
        "| my_net | 1,517,571 | 114.0 | 1.25 | 300 | 32.63 / 0.9000 / 0.2000 |",
    ]
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [(line["model"], line["set"]) for line in lines] == [
        ("bicubic", "Set5"),
        ("my_net", "Set5"),
    ]
    assert float(lines[1]["psnr_y"]) == 32.634
    assert (lines[0]["bytes"], lines[1]["seconds"], lines[1]["lpips"]) == ("", "1.25", "0.2")
    latex = report.to_latex().splitlines()
    assert latex[0] == r"\begin{tabular}{lrrrrrrr}"
    assert latex[-3] == (
        r"my\_net & 1,517,571 & 114.0 & 1.25 & 300 & \textbf{32.63} & \textbf{0.9000} & "
        r"\textbf{0.2000} \\"
    )
    assert latex[-4].startswith(r"bicubic & -- & -- & 0.10 & -- & 30.00 & \textbf{0.9000} & 0.3000")


def test_latex_prints_what_was_written() -> None:
    assert escape("a_b 50% {x} C:\\d ~ #1 & $2^3") == (
        r"a\_b 50\% \{x\} C:\textbackslash{}d \textasciitilde{} \#1 \& \$2\textasciicircum{}3"
    )
