"""Regenerate results/sizes: what distillation gains over students' sizes and lengths of training.

    LSFD_DATA=... python scripts/sizes.py [--jobs 2]

Each size and length is a comparison of its own (`lsfd compare`, options/compare_x4.yml); the same
command goes on where it was stopped. scripts/tables.py draws from the records alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.reporting.comparison import Gain, MethodResult, count_seeds, gain, gain_text
from lsfd.reporting.style import MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import Cell, fewer_seeds, markdown_table
from lsfd.training.compare import Comparison
from lsfd.training.compared import BASELINE, SUMMARY, keep_comparison, read_comparison

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ROOT / "options" / "compare_x4.yml"
OUT = ROOT / "results" / "sizes"
METHODS = (BASELINE, "LSFD", "LSFD_start")
"""The last one has a teacher in the first quarter of its steps only."""
_COMMON = {"num_in_ch": 3, "num_out_ch": 3, "upscale": 4, "res_scale": 1}
SIZES: dict[str, dict[str, Any] | None] = {
    "xs": {"type": "SlimEDSR", "num_feat": 16, "block_widths": [16] * 7, "upsample_width": 8},
    "s": None,  # The option file's own.
    "m": {"type": "EDSR", "num_feat": 64, "num_block": 16},
}
"""The students: edsr-xs, EDSR 32 x 8, and one as large as the teacher."""
LENGTHS = {"xs": (500, 2000), "s": (500, 2000, 8000), "m": (500,)}
"""Steps of training; the largest takes three times as long as s for one, and for its scores."""
ASIDE = 1.05
"""By which factor lines stand beside each other, so that their intervals can be told apart."""


def main() -> None:
    """Train what is missing, keep it, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        for steps in LENGTHS[size]:
            comparison = planned(size, steps, arguments.overrides)
            status = comparison.train(comparison.runs, arguments.jobs)
            if status:
                raise SystemExit(status)
            keep_comparison(OUT / f"{size}_{steps}", comparison.runs)
    draw()


def planned(size: str, steps: int, overrides: list[str]) -> Comparison:
    """Return the comparison of one size and length."""
    network, changes = SIZES[size], []
    if network is not None:
        changes.append(f"network_g={json.dumps({**network, **_COMMON})}")
    if steps != 2000:
        changes += [f"train.total_iter={steps}", f"val.val_freq={steps}"]
        changes.append(f"compare.methods.{METHODS[-1]}.distillers.0.end={steps // 4}")
    if changes:  # What compare_x4.yml asks for is trained once, under its own name.
        changes.append(f"name=sizes_{size}_{steps}")
    return Comparison(OPTIONS, [*changes, *overrides], METHODS)


def draw() -> None:
    """Write table and picture from the records, if there are any."""
    cells = read()
    if cells:
        write_text(OUT / "table.md", table(cells))
        save_picture(cells, OUT / "sizes.png")


Cells = dict[tuple[str, int], list[MethodResult]]
"""Size and steps -> what each of METHODS reached."""


def read() -> Cells:
    """Return what was kept."""
    return {
        (size, steps): read_comparison(OUT / f"{size}_{steps}")[1]
        for size, lengths in LENGTHS.items()
        for steps in lengths
        if (OUT / f"{size}_{steps}" / SUMMARY).exists()
    }


def table(cells: Cells) -> str:
    """Return a row for each size and length: Plain's score, and the gains over it, on each set."""
    sets = list(next(iter(cells.values()))[0].scores)
    header = ["student", "steps"]
    header += [f"{name} ({each})" for each, name in product(sets, METHODS)]
    rows: list[list[Cell]] = []
    for (size, steps), (plain, *others) in cells.items():
        seeds = count_seeds((plain, *others))
        row: list[Cell] = [size, steps]
        for each in sets:
            values = plain.scores.get(each, {}).values()
            row.append(f"{fmean(values):.3f}{fewer_seeds(len(values), seeds)}" if values else None)
            row += [gain_text(other, plain, each, seeds) for other in others]
        rows.append(row)
    return markdown_table(header, rows)


def save_picture(cells: Cells, path: Path) -> None:
    """Save gains over the length of the training: a colour for each size, a panel a set."""
    sets = list(next(iter(cells.values()))[0].scores)
    trained = {size for size, _ in cells}
    drawn = [size for size in SIZES if size in trained]
    with saved_figure(path, 3.6, f"Gain over {BASELINE}") as figure:
        panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, sets, strict=True):
            axes.set_title(name)
            axes.set_xscale("log")
            axes.set_xlabel("steps")
            axes.axhline(0, color=MUTED, linewidth=1)
            for number, (color, size) in enumerate(zip(PALETTE, drawn, strict=False)):
                for index, line in ((1, "o-"), (2, "s--")):
                    its = gains(cells, size, name, index)
                    aside = ASIDE ** (2 * number + index - len(drawn) - 0.5)
                    axes.errorbar(
                        [steps * aside for steps in its], [each.mean for each in its.values()],
                        yerr=[each.half_width or 0 for each in its.values()],
                        fmt=line, color=color, capsize=3, label=f"{size}, {METHODS[index]}",
                    )  # fmt: skip
            lengths = sorted({steps for _, steps in cells})
            axes.set_xticks(lengths, [f"{steps:,}" for steps in lengths])
            axes.minorticks_off()
        panels[0].set_ylabel("dB")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(drawn))


def gains(cells: Cells, size: str, name: str, index: int) -> dict[int, Gain]:
    """Return a method's gain on a set by steps."""
    found = {
        steps: gain(results[index].scores.get(name, {}), results[0].scores.get(name, {}))
        for (other, steps), results in cells.items()
        if other == size
    }
    return {steps: each for steps, each in found.items() if each is not None}


if __name__ == "__main__":
    sys.exit(exit_status("sizes", main))
