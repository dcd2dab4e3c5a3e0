"""Regenerate results/students/early.png: LSFD at the beginning and at the end of a training.

    python scripts/early.py

edsr-xs-x4's training begins with LSFD and goes on without a teacher; in another one of as many
steps, with the same seed and patches, LSFD came last. No run is needed: both records are kept.
scripts/students.py makes the first; the other is the same option file with
``distillers=[{type: LSFD, kernel: 1, start: 34001, weights: {feature: 0.03, output: 1.0}}]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.ticker import StrMethodFormatter

from lsfd.cli import exit_status
from lsfd.errors import LsfdError
from lsfd.reporting.series import Points, scores_of
from lsfd.reporting.style import PALETTE, saved_figure
from lsfd.training.records import read_records

FOLDER = Path(__file__).resolve().parent.parent / "results" / "students"
RUNS = {
    "LSFD until 2,000, no teacher until 36,000, the teacher's images at the end": (
        FOLDER / "records" / "edsr-xs-x4.jsonl"
    ),
    "no teacher until 34,000, LSFD at the end": FOLDER / "tried" / "edsr_xs_x4_lsfd_late.jsonl",
}
SET = "Set5"
LOWEST = 29.5
"""Below it both only rise steeply."""


def main() -> None:
    """Draw both."""
    with saved_figure(FOLDER / "early.png", 3.6, f"edsr-xs-x4: PSNR-Y on {SET}") as figure:
        axes = figure.subplots()
        for color, (name, points) in zip(PALETTE, curves().items(), strict=False):
            axes.plot(list(points), list(points.values()), ".-", color=color, label=name)
        axes.set_ylim(bottom=LOWEST)
        axes.set_ylabel("dB")
        axes.set_xlabel("steps")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.legend(loc="lower center")


def curves() -> dict[str, Points]:
    """Return each run's score by step.

    Raises:
        LsfdError: a record is missing, damaged, or without scores on the set.
    """
    found = {}
    for name, file in RUNS.items():
        scores = scores_of(read_records(file, complete=True), "psnr")
        if SET not in scores:
            raise LsfdError(
                f"{file} is missing, or has no scores on {SET}; it comes with the repository: take "
                "it from there again"
            )
        found[name] = scores[SET]
    return found


if __name__ == "__main__":
    sys.exit(exit_status("early", main))
