"""Regenerate results/x4: an RCAN student at x4 with and without LSFD, as they were first trained.

    LSFD_DATA=... python scripts/results_x4.py

Trains what has not been trained yet (each run resumes where it was stopped), scores both students,
their teacher and bicubic on Set5, Set14 and Urban100, and writes table, curves and pictures. Kept
beside them are each run's records.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lsfd.atomic import write_bytes, write_text
from lsfd.cli import exit_status
from lsfd.config.load import load_options
from lsfd.evaluation.benchmark import benchmark
from lsfd.evaluation.report import BenchmarkReport
from lsfd.evaluation.sets import find_set
from lsfd.imaging.files import read_image
from lsfd.reporting.curves import save_comparison_curves
from lsfd.reporting.pictures import Result, save_comparison
from lsfd.reporting.tables import markdown_table
from lsfd.training.records import read_records
from lsfd.training.run import is_trained, train

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "x4"
SETS = ("Set5", "Set14", "Urban100")
RUNS = {
    "rcan_x4_plain": (),
    "rcan_x4_lsfd": ("distillers=[{type: LSFD, kernel: 1, weights: {feature: 1e-3}}]",),
}
"""Option files, and what they said then. LSFD's defaults have changed since."""
TEACHER = ROOT / "results" / "teachers" / "rcan_x4_teacher.safetensors"
LABELS = {"rcan_x4_plain": "no teacher", "rcan_x4_lsfd": "LSFD", "rcan_x4_teacher": "teacher"}
SCALE = 4
PICTURES = {"Set5": "butterfly", "Set14": "zebra", "Urban100": "img_012"}


def main() -> None:
    """Train what is missing, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    for name, changes in RUNS.items():
        options = ROOT / "options" / f"{name}.yml"
        overrides = [f"path.experiments_root={arguments.experiments}", *changes]
        if not is_trained(load_options(options, overrides)):
            status = train(options, overrides, auto_resume=True)
            if status:
                raise SystemExit(status)
    write_report(arguments.experiments, arguments.device)


def write_report(experiments: Path, device: str) -> None:
    """Score the students and write ``results/x4/rcan*``."""
    students = [experiments / name / f"{name}.safetensors" for name in RUNS]
    pictures = experiments / "rcan_x4_pictures"
    report = benchmark([*students, TEACHER], SETS, SCALE, device=device, pictures=pictures)
    write_text(OUT / "rcan.json", json.dumps(report.to_json(), indent=1) + "\n")
    write_text(OUT / "rcan.md", table(report))
    draw_curves(report, experiments)
    draw_pictures(report, pictures)
    for name in RUNS:
        records = (experiments / name / "metrics.jsonl").read_bytes()
        write_bytes(OUT / "records" / f"{name}.jsonl", records)


def table(report: BenchmarkReport) -> str:
    """Return the PSNR-Y / SSIM-Y table, the best student of each column in bold."""
    header = ["x4", "parameters", *(f"{name} {m}" for name in SETS for m in ("PSNR", "SSIM"))]
    rows = [
        [
            LABELS.get(row.name, row.name),
            row.cost.parameters or None,
            *(value for s in row.scores for value in (s.psnr_y, s.ssim_y)),
        ]
        for row in report.rows
    ]
    digits = {column: 2 if column % 2 == 0 else 4 for column in range(2, len(header))}
    return markdown_table(header, rows, digits=digits)


def draw_curves(report: BenchmarkReport, experiments: Path) -> None:
    """Draw the validation PSNR of all runs, with bicubic and teacher for reference."""
    records = {LABELS[n]: read_records(experiments / n / "metrics.jsonl") for n in RUNS}
    reference = {
        title: {scores.name: scores.psnr_y for scores in row.scores if scores.name == "Set5"}
        for title, row in (("Bicubic", report.rows[0]), ("Teacher", report.rows[-1]))
    }
    save_comparison_curves(records, OUT / "rcan_curves.png", reference=reference)


def draw_pictures(report: BenchmarkReport, pictures: Path) -> None:
    """Draw one image of each set, upscaled by every row."""
    for index, (set_name, image) in enumerate(PICTURES.items()):
        hr = next(hr for name, _, hr in find_set(set_name, None, SCALE) if name == image)
        results = []
        for row in report.rows:
            psnr = row.scores[index].images[image].psnr_y
            sr = read_image(pictures / set_name / row.name / f"{image}.png")
            results.append(Result(LABELS.get(row.name, row.name), sr, f"{psnr:.2f} dB", psnr))
        path = OUT / f"rcan_{set_name}_{image}.png"
        save_comparison(path, hr, results, title=f"{image} ({set_name}), x4")


if __name__ == "__main__":
    sys.exit(exit_status("results_x4", main))
