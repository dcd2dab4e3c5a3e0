"""The main job from end to end, in minutes and without a download.

Trains one small student twice on photographs that scikit-image ships, without a teacher and with
LSFD from the shipped teacher; then scores both on photographs that neither has seen, beside
bicubic and the teacher, draws the curves and a comparison, and upscales a folder. Each step is the
command that it prints.

    python scripts/quickstart.py [--iterations N]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.cli import main as lsfd
from lsfd.imaging.files import read_image
from lsfd.imaging.resize import modcrop
from lsfd.reporting.curves import save_comparison_curves
from lsfd.reporting.pictures import Result, save_comparison
from lsfd.reporting.tables import Cell, markdown_table
from lsfd.training.records import read_records

ROOT = Path(__file__).resolve().parent.parent
DATA = Path("datasets/quickstart")
RUNS = Path("experiments")
OUT = Path("results/quickstart")
TEACHER = Path("results/teachers/edsr_x4_teacher.safetensors")
PLAIN, LSFD = "quickstart_x4_plain", "quickstart_x4_lsfd"
LABELS = {"bicubic": "Bicubic", PLAIN: "Student, no teacher", LSFD: "Student, LSFD"}
SCALE = 4


def main() -> None:
    """Run all steps; the first that fails ends the script with its status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, help="of each student (default: as in options/)")
    iterations = parser.parse_args().iterations
    # Paths in option files count from the checkout's root.
    os.chdir(ROOT)
    start = time.perf_counter()
    change = f"--set train.total_iter={iterations}" if iterations else ""
    weights = [RUNS / name / f"{name}.safetensors" for name in (PLAIN, LSFD)]
    run(f"prepare --embedded -o {DATA}")
    run(f"prepare -i {DATA}/val/HR -o {DATA}/val_x{SCALE} --scale {SCALE}")
    for name in (PLAIN, LSFD):
        run(f"train -opt options/{name}.yml --auto_resume {change}")
    run(
        f"benchmark --weights {weights[0]} {weights[1]} {TEACHER} --sets {DATA}/val_x{SCALE}/HR "
        f"--scale {SCALE} --json {OUT}/scores.json --pictures {OUT}/pictures"
    )
    run(f"upscale -i {DATA}/val_x{SCALE}/LR_bicubic/X{SCALE} -o {OUT}/upscaled -w {weights[1]}")
    models = json.loads((OUT / "scores.json").read_text())["models"]
    write_text(OUT / "table.md", table(models))
    draw(models)
    minutes = (time.perf_counter() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Look at {OUT}/comparison.png, {OUT}/curves.png and "
          f"{OUT}/upscaled; the student is {weights[1]}.")  # fmt: skip


def run(command: str) -> None:
    """Run and print one ``lsfd`` command."""
    command = " ".join(command.split())
    print(f"\n$ lsfd {command}", flush=True)
    status = lsfd(shlex.split(command))
    if status:
        sys.exit(status)


def table(models: dict[str, Any]) -> str:
    """Return the scores in short, as README.md has them."""
    rows: list[list[Cell]] = []
    for name, label in {**LABELS, TEACHER.stem: "Teacher"}.items():
        (its,) = models[name]["sets"].values()
        scores = f"{its['psnr_y']:.2f} / {its['ssim_y']:.4f}"
        rows.append([label, models[name]["parameters"] or None, scores])
    return markdown_table(["x4, held-out photographs", "parameters", "PSNR-Y / SSIM-Y"], rows)


def draw(models: dict[str, Any]) -> None:
    """Draw validation curves of both runs, and the crops of one photograph side by side."""
    scores = {name: next(iter(model["sets"].values())) for name, model in models.items()}
    records = {LABELS[name]: read_records(RUNS / name / "metrics.jsonl") for name in (PLAIN, LSFD)}
    reference = {
        "Bicubic": {"photographs": scores["bicubic"]["psnr_y"]},
        "Teacher": {"photographs": scores[TEACHER.stem]["psnr_y"]},
    }
    save_comparison_curves(records, OUT / "curves.png", reference=reference)

    hr_folder = DATA / f"val_x{SCALE}" / "HR"
    image = max(scores["bicubic"]["images"], key=lambda name: gain(scores, name))
    hr = modcrop(read_image(hr_folder / f"{image}.png"), SCALE)
    lr = read_image(DATA / f"val_x{SCALE}" / f"LR_bicubic/X{SCALE}" / f"{image}.png")
    size = f"{lr.shape[1]} x {lr.shape[0]} pixels"
    results = [Result("Low resolution", np.repeat(np.repeat(lr, SCALE, 0), SCALE, 1), size)]
    for name, label in {**LABELS, TEACHER.stem: "Teacher"}.items():
        psnr = scores[name]["images"][image]["psnr_y"]
        folder = OUT / "pictures" / f"val_x{SCALE}" / name
        results.append(Result(label, read_image(folder / f"{image}.png"), f"{psnr:.2f} dB", psnr))
    save_comparison(OUT / "comparison.png", hr, results, title=f"{image}, x{SCALE}")


def gain(scores: dict[str, dict[str, dict[str, dict[str, float]]]], image: str) -> float:
    """Return how many dB the LSFD student is above bicubic on one photograph."""
    return scores[LSFD]["images"][image]["psnr_y"] - scores["bicubic"]["images"][image]["psnr_y"]


if __name__ == "__main__":
    sys.exit(exit_status("quickstart", main))
