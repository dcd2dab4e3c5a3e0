"""Regenerate results/x4: students of EDSR and RCAN teachers at x4, method beside method.

    LSFD_DATA=... python scripts/results_x4.py [--families edsr rcan]

Trains every option file named below that has not been trained yet (each resumes where it was
stopped), scores all students, their teachers and bicubic on Set5, Set14 and Urban100, and writes
tables, curves and pictures. Kept beside them are each run's records.
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
FAMILIES = {
    "edsr": (
        "methods/edsr_x4_plain",
        "methods/edsr_x4_output",
        "methods/edsr_x4_fitnet",
        "edsr_x4_lsfd",
    ),
    "rcan": ("rcan_x4_plain", "rcan_x4_lsfd"),
}
"""For each teacher the option files that are trained."""
METHODS = {"plain": "no teacher", "output": "output only", "fitnet": "FitNet", "lsfd": "LSFD"}
SCALE = 4
PICTURES = {"Set5": "butterfly", "Set14": "zebra", "Urban100": "img_012"}


def main() -> None:
    """Train what is missing, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    arguments = parser.parse_args()
    for family in arguments.families:
        names = tuple(Path(file).name for file in FAMILIES[family])
        for file in FAMILIES[family]:
            options = ROOT / "options" / f"{file}.yml"
            root = [f"path.experiments_root={arguments.experiments}"]
            if not is_trained(load_options(options, root)):
                status = train(options, root, auto_resume=True)
                if status:
                    raise SystemExit(status)
        report_on(family, names, arguments.experiments, arguments.device)


def student_of(name: str, experiments: Path) -> Path:
    """Return the file of a run's finished student."""
    return experiments / name / f"{name}.safetensors"


def report_on(family: str, names: tuple[str, ...], experiments: Path, device: str) -> None:
    """Score one teacher's students and write ``results/x4/<family>*``."""
    teacher = ROOT / "results" / "teachers" / f"{family}_x4_teacher.safetensors"
    students = [student_of(name, experiments) for name in names]
    pictures = experiments / f"{family}_x4_pictures"
    report = benchmark([*students, teacher], SETS, SCALE, device=device, pictures=pictures)
    write_text(OUT / f"{family}.json", json.dumps(report.to_json(), indent=1) + "\n")
    write_text(OUT / f"{family}.md", table(report, family))
    draw_curves(report, family, names, experiments)
    draw_pictures(report, family, pictures)
    for name in names:
        records = (experiments / name / "metrics.jsonl").read_bytes()
        write_bytes(OUT / "records" / f"{name}.jsonl", records)


def label(name: str, family: str) -> str:
    """Return what a row or curve is called."""
    method = name.removeprefix(f"{family}_x4_")
    return METHODS.get(method, method)


def table(report: BenchmarkReport, family: str) -> str:
    """Return the PSNR-Y / SSIM-Y table, the best student of each column in bold."""
    header = ["x4", "parameters", *(f"{name} {m}" for name in SETS for m in ("PSNR", "SSIM"))]
    rows = [
        [
            label(row.name, family),
            row.cost.parameters or None,
            *(value for s in row.scores for value in (s.psnr_y, s.ssim_y)),
        ]
        for row in report.rows
    ]
    digits = {column: 2 if column % 2 == 0 else 4 for column in range(2, len(header))}
    return markdown_table(header, rows, digits=digits)


def draw_curves(
    report: BenchmarkReport, family: str, names: tuple[str, ...], experiments: Path
) -> None:
    """Draw the validation PSNR of all runs, with bicubic and teacher for reference."""
    records = {label(n, family): read_records(experiments / n / "metrics.jsonl") for n in names}
    reference = {
        title: {scores.name: scores.psnr_y for scores in row.scores if scores.name == "Set5"}
        for title, row in (("Bicubic", report.rows[0]), ("Teacher", report.rows[-1]))
    }
    save_comparison_curves(records, OUT / f"{family}_curves.png", reference=reference)


def draw_pictures(report: BenchmarkReport, family: str, pictures: Path) -> None:
    """Draw one image of each set, upscaled by every row."""
    for index, (set_name, image) in enumerate(PICTURES.items()):
        hr = next(hr for name, _, hr in find_set(set_name, None, SCALE) if name == image)
        results = []
        for row in report.rows:
            psnr = row.scores[index].images[image].psnr_y
            sr = read_image(pictures / set_name / row.name / f"{image}.png")
            results.append(Result(label(row.name, family), sr, f"{psnr:.2f} dB", psnr))
        path = OUT / f"{family}_{set_name}_{image}.png"
        save_comparison(path, hr, results, title=f"{image} ({set_name}), x4")


if __name__ == "__main__":
    sys.exit(exit_status("results_x4", main))
