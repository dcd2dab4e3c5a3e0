"""Regenerate results/paper/table.md: the table that the papers have, and what we have beside it.

    python scripts/paper_table.py

Trains nothing. Published figures are in results/paper/published.json, ours come from
results/compare_rcan_x4 (``lsfd compare -opt options/compare_rcan_x4.yml``), hours from
results/paper/hours.json and hours_cpu.json (``python scripts/hours.py``). The two kinds of figures
never share a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.config.inheritance import read_options
from lsfd.networks.student_file import read_student
from lsfd.reporting.comparison import comparison_table
from lsfd.reporting.tables import Cell, markdown_table
from lsfd.training.compared import BASELINE as PLAIN
from lsfd.training.compared import read_comparison
from lsfd.training.records import read_records

ROOT = Path(__file__).resolve().parent.parent
PAPER = ROOT / "results" / "paper"
OURS = ROOT / "results" / "compare_rcan_x4"
OPTIONS = ROOT / "options" / "compare_rcan_x4.yml"
TEACHER = ROOT / "results" / "teachers" / "rcan_x4_teacher.safetensors"
SCALES = (2, 3, 4)
A100 = 156
"""Most Tflop/s of an A100 with TF32, dense."""
BASELINE = "no teacher"
"""Of the published rows."""


def main() -> None:
    """Write the page."""
    write_text(PAPER / "table.md", page())
    print(page())


def page() -> str:
    """Return the page as Markdown."""
    published = read_json(PAPER / "published.json")
    tables = "\n".join(f"### x{scale}\n\n{published_table(published, scale)}" for scale in SCALES)
    sources = "\n".join(
        f"* *{name}* ({source['mark']}): {source['where']}."
        for name, source in published["sources"].items()
    )
    return f"""# RCAN 10x6 from RCAN 10x20: what is published, and what we have

Written by `python scripts/paper_table.py`. PSNR in dB on luma, as many pixels shaved as the scale.

## Published, by others

Trained on DIV2K's 800 images; 5.0 to 5.2 M parameters learn from 15.4 to 15.6 M.

{tables}
{sources}

Compare within a source only: between the two papers the student *without* any teacher differs by
{largest_difference(published)}, more than any method gains there over its own paper's row. None
of these figures was reproduced by us.

## Ours, at the budget we had

Not a row of the tables above, and no substitute for one. {our_budget()}

{our_table()}
Records, intervals over seeds and images, and pictures:
[`../compare_rcan_x4`](../compare_rcan_x4/compare.md).

## What the rows would take

`options/paper/` has both papers' recipes: `dckd_table_x*.yml` (250,000 steps) and
`fakd_table_x*.yml` (200,000 steps), each with the rows Plain, Output, FAKD and LSFD; which part of
a recipe is inferred is said in the files. LSFD's own recipe is not known to us.

{hours(read_json(PAPER / "hours.json"), read_json(PAPER / "hours_cpu.json"))}"""


def read_json(path: Path) -> dict[str, Any]:
    """Return a record."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def published_table(published: Mapping[str, Any], scale: int) -> str:
    """Return the published rows of a scale, digits as printed."""
    marks = {name: source["mark"] for name, source in published["sources"].items()}
    rows = [
        [row["method"], f"{row['source']} ({marks[row['source']]})", *row["psnr_y"][str(scale)]]
        for row in published["rows"]
    ]
    return markdown_table(["method", "source", *published["sets"]], rows)


def largest_difference(published: Mapping[str, Any]) -> str:
    """Return by how much, and where, the papers differ most on the student without a teacher."""
    first, second = (row["psnr_y"] for row in published["rows"] if row["method"] == BASELINE)
    differences = {
        f"{name} x{scale}": abs(float(first[scale][index]) - float(second[scale][index]))
        for scale in first
        for index, name in enumerate(published["sets"])
    }
    place = max(differences, key=lambda place: differences[place])
    return f"up to {differences[place]:.2f} dB ({place})"


def our_budget() -> str:
    """Say what our figures come from."""
    options, _ = read_options(OPTIONS)
    about, results = read_comparison(OURS)
    records = read_records(
        OURS / "records" / f"{PLAIN}_seed{about['seeds'][0]}.jsonl", complete=True
    )
    run = next(record for record in records if record["kind"] == "run")
    images, _, _ = run["data"].partition(",")
    _, card = read_student(TEACHER)
    scores = ", ".join(
        f"{its['psnr_y']:.2f} on {name}" for name, its in sorted(card.scores.items())
    )
    longer = "".join(
        f" ({result.name}: {result.steps:,})"
        for result in results
        if result.steps not in (None, about["total_iter"])
    )
    return (
        f"A smaller student ({size(about['network_g'])}) of a smaller teacher "
        f"({size(options['network_t'])}, trained by us: {scores}), other images ({images}), "
        f"{about['total_iter']:,} steps{longer} of {about['batch']} patches of "
        f"{about['gt_size'] // about['scale']} LR pixels, x4 alone, {len(about['seeds'])} seeds, "
        f"{', '.join(about['trained_on'])}."
    )


def size(network: Mapping[str, Any]) -> str:
    """Return groups x blocks and width of an RCAN."""
    return f"{network['num_group']}x{network['num_block']}, {network['num_feat']} channels"


def our_table() -> str:
    """Return our rows at x4."""
    _, results = read_comparison(OURS)
    return comparison_table(results, PLAIN)


def hours(derived: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return what the rows take: derived for a GPU, measured on the processor that we had."""
    rows = derived["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines: list[list[Cell]] = []
    for table in dict.fromkeys(row["table"] for row in rows):
        values = [row["derived_hours"] for row in rows if row["table"] == table]
        lines.append([table, *values, sum(values)])
    total = sum(row["derived_hours"] for row in rows)
    digits = dict.fromkeys(range(1, len(methods) + 2), 1)
    clock = [[row["method"], row["seconds"], row["hours"]] for row in measured["rows"]]
    first = measured["rows"][0]
    rate = f"{derived['tflops']:g} Tflop/s ({derived['tflops'] / A100:.0%} of an A100's {A100})"
    return f"""**Derived, not measured**: GPU hours of one run, from the arithmetic of its steps at
{rate}, a rate that is assumed.
Networks as narrow as these may stay below it: the true hours may be several times as many.

{markdown_table(["option file", *methods, "all"], lines, digits=digits)}
All of them: {total:.0f} GPU hours for one seed. Validation and waiting for images come on top.

**Measured**, on {measured["hardware"]}, in bf16, while other trainings shared the processor,
so that rows differ by chance as well: {first["table"]}, seconds of a step of {first["batch"]}
patches (scaled from {first["measured_batch"]}) and hours of a whole run.

{markdown_table(["row", "s/step", "hours"], clock, digits={1: 1, 2: 0})}
No GPU was at hand. Where one is, the same command measures there:

```sh
python scripts/hours.py options/paper/*.yml --json FILE
```

The two records: `hours.json` by `python scripts/hours.py options/paper/*.yml --no_clock`,
`hours_cpu.json` by `python scripts/hours.py options/paper/dckd_table_x4.yml --batch 2 --set
train.precision=bf16`.
"""


if __name__ == "__main__":
    sys.exit(exit_status("paper_table", main))
