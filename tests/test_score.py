from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.evaluation.score import score_folders
from lsfd.evaluation.scores import ImageScores, SetScores
from lsfd.imaging.files import write_image
from lsfd.metrics.image import psnr, ssim


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of a set at x4; the originals are no multiple of 4."""
    sr, hr = tmp_path / "sr", tmp_path / "Tiny" / "HR"
    for seed, name in enumerate(["ape", "bee"]):
        write_image(hr / f"{name}.png", picture(27, 33, seed))
        write_image(sr / f"{name}.png", picture(24, 32, seed + 10))
    return sr, hr


@pytest.mark.skipif(
    "LSFD_DATA" not in os.environ,
    reason="set LSFD_DATA to the folder of real images (see datasets/README.md)",
)
def test_rcan_scores_what_its_authors_published() -> None:
    data = Path(os.environ["LSFD_DATA"])
    scores = score_folders(data / "golden/rcan_x4", data / "benchmarks/Set5/HR", 4)
    assert scores.name == "Set5"
    assert list(scores.images) == ["baby", "bird", "butterfly", "head", "woman"]
    assert round(scores.psnr_y, 2) == 32.63
    assert round(scores.ssim_y, 4) == 0.9002


def test_originals_are_cropped_and_the_border_is_shaved(folders: tuple[Path, Path]) -> None:
    scores = score_folders(*folders, 4)
    assert scores.name == "Tiny"
    sr, hr = picture(24, 32, 10), picture(27, 33, 0)[:24, :32]
    assert scores.images["ape"] == ImageScores(
        psnr(sr, hr, 4, "y"), ssim(sr, hr, 4, "y"), psnr(sr, hr, 4, "rgb"), ssim(sr, hr, 4, "rgb")
    )
    assert scores.psnr_y == pytest.approx(
        (scores.images["ape"].psnr_y + scores.images["bee"].psnr_y) / 2
    )


@pytest.mark.parametrize("ending", ["x4.png", "_x4.png", ".bmp"])
def test_names_may_carry_the_scale(folders: tuple[Path, Path], ending: str) -> None:
    sr, hr = folders
    expected = score_folders(sr, hr, 4)
    (sr / "ape.png").unlink()
    write_image(sr / f"ape{ending}", picture(24, 32, 10))
    assert score_folders(sr, hr, 4) == expected


def test_a_name_that_ends_like_a_scale_is_taken_as_it_is(folders: tuple[Path, Path]) -> None:
    sr, hr = folders
    for folder in (sr, hr):
        write_image(folder / "ape_x4.png", picture(24, 32, 5))
    assert list(score_folders(sr, hr, 4).images) == ["ape", "ape_x4", "bee"]


def test_files_without_counterpart_are_listed(folders: tuple[Path, Path]) -> None:
    sr, hr = folders
    (sr / "bee.png").rename(sr / "bee_x3.png")
    with pytest.raises(LsfdError) as raised:
        score_folders(sr, hr, 4)
    assert f"bee in {hr} without counterpart in {sr}" in str(raised.value)
    assert f"bee_x3 in {sr} without counterpart in {hr}" in str(raised.value)
    write_image(sr / "bee.png", picture(24, 32, 0))
    write_image(sr / "bee_x4.png", picture(24, 32, 0))
    with pytest.raises(LsfdError, match=r"bee\.png and .*bee_x4\.png both belong to"):
        score_folders(sr, hr, 4)


def test_another_size_is_named(folders: tuple[Path, Path]) -> None:
    sr, hr = folders
    write_image(sr / "bee.png", picture(24, 28, 0))
    with pytest.raises(LsfdError, match=r"sr/bee\.png has 28x24 .*HR/bee\.png.* has 32x24"):
        score_folders(sr, hr, 4)


def test_other_mistakes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    sr, hr = folders
    with pytest.raises(LsfdError, match="absent does not exist"):
        score_folders(tmp_path / "absent", hr, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LsfdError, match=r"no image in .*empty"):
        score_folders(sr, tmp_path / "empty", 4)
    with pytest.raises(LsfdError, match="from 1 on, not 0"):
        score_folders(sr, hr, 0)
    write_image(sr / "bee.png", picture(8, 8, 0))
    write_image(hr / "bee.png", picture(8, 8, 0))
    with pytest.raises(LsfdError, match=r"sr/bee\.png.*too small"):
        score_folders(sr, hr, 4)


def test_identical_images_are_counted_beside_the_mean(folders: tuple[Path, Path]) -> None:
    sr, hr = folders
    before = score_folders(sr, hr, 4)
    write_image(sr / "ape.png", picture(27, 33, 0)[:24, :32])
    scores = score_folders(sr, hr, 4)
    assert scores.images["ape"].psnr_y == math.inf
    assert scores.psnr_y == before.images["bee"].psnr_y
    entry = json.loads(json.dumps(scores.to_json(), allow_nan=False))["sets"]["Tiny"]
    assert entry["identical"] == 1
    assert entry["images"]["ape"]["psnr_y"] == "inf"
    assert entry["psnr_y"] == before.images["bee"].psnr_y
    assert "1 of 2 images are identical" in scores.to_markdown()


def test_json_and_markdown() -> None:
    scores = SetScores("Two", {"a": ImageScores(30, 0.9, 28, 0.8), "b": ImageScores(32, 1, 30, 1)})
    assert scores.to_json() == {
        "sets": {
            "Two": {
                "psnr_y": 31,
                "ssim_y": 0.95,
                "psnr_rgb": 29,
                "ssim_rgb": 0.9,
                "images": {
                    "a": {"psnr_y": 30, "ssim_y": 0.9, "psnr_rgb": 28, "ssim_rgb": 0.8},
                    "b": {"psnr_y": 32, "ssim_y": 1, "psnr_rgb": 30, "ssim_rgb": 1},
                },
            }
        }
    }
    lines = [" ".join(line.split()) for line in scores.to_markdown().splitlines()]
    assert lines[0] == "| Two | PSNR-Y | SSIM-Y | PSNR-RGB | SSIM-RGB |"
    assert lines[2:] == [
        "| a | 30.00 | 0.9000 | 28.00 | 0.8000 |",
        "| b | 32.00 | 1.0000 | 30.00 | 1.0000 |",
        "| mean | 31.00 | 0.9500 | 29.00 | 0.9000 |",
    ]
