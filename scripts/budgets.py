"""Regenerate results/budgets: PSNR over the budget of block-wise compression.

    LSFD_DATA=... OMP_NUM_THREADS=1 python scripts/budgets.py [--budgets params=300k ...]

For each budget the teacher is compressed (`lsfd compress`, options/compress_x4.yml) and fine-tuned;
the same architecture is trained from random weights with the same options, loss, teacher and number
of steps. All candidates are trained once. Then everything is scored, also what was assembled before
fine-tuning. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lsfd import provenance
from lsfd.atomic import write_bytes, write_text
from lsfd.cli import exit_status
from lsfd.compression.budget import parse_budget
from lsfd.compression.choice import Choice
from lsfd.config.load import load_options
from lsfd.evaluation.benchmark import BICUBIC, benchmark
from lsfd.metrics.cost import count_parameters
from lsfd.reporting.style import MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import Cell, markdown_table
from lsfd.training.compress import Compression, compress
from lsfd.training.folder import RunFolder
from lsfd.training.planned import PlannedRun
from lsfd.training.run import is_trained, train

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ROOT / "options" / "compress_x4.yml"
BUDGETS = ("params=150k", "params=300k", "params=500k", "params=800k")
SETS = ("Set5", "Set14")
TEACHER = "teacher"
ASSEMBLED, COMPRESSED, SCRATCH = "assembled", "compressed", "from scratch"
KINDS = (ASSEMBLED, SCRATCH, COMPRESSED)


@dataclass(frozen=True)
class Row:
    """What one budget gave.

    Attributes:
        budget: as written.
        choice: see :meth:`lsfd.compression.choice.Choice.to_json`.
        parameters: of the network.
        psnr: PSNR-Y by kind (of :data:`KINDS`), then by set.
    """

    budget: str
    choice: dict[str, Any]
    parameters: int
    psnr: dict[str, dict[str, float]]


def main() -> None:
    """Compress, train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), metavar="KIND=LIMIT")
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--opt", type=Path, default=OPTIONS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "budgets")
    given = parser.parse_args()

    options = load_options(given.opt, given.overrides).options
    root = Path(options.path.experiments_root) / options.name
    cache = root / "teacher_cache"  # All runs see the same patches.
    overrides = [*given.overrides, f"path.teacher_cache={cache}"]
    for budget in given.budgets:
        finish(compress(given.opt, overrides, budget))
        run, _, _ = planned(given.opt, overrides, budget)
        changes = ["path.pretrain_network_g=null", f"name={scratch_of(run.folder).root.name}"]
        if not is_trained(load_options(run.option_file, changes)):
            finish(train(run.option_file, changes, auto_resume=True))
    shutil.rmtree(cache, ignore_errors=True)
    write_results(given.opt, overrides, given.budgets, given.sets, given.output)


def finish(status: int) -> None:
    """End the script where a training was stopped."""
    if status:
        print("stopped; give the same command to go on")
        raise SystemExit(status)


def planned(file: Path, overrides: Sequence[str], budget: str) -> tuple[PlannedRun, Choice, Path]:
    """Return fine-tuning, choice and assembled network of a budget that has been compressed to."""
    work = Compression.of(load_options(file, overrides))
    return *work.plan(parse_budget(budget)), work.assembled(parse_budget(budget))


def scratch_of(folder: RunFolder) -> RunFolder:
    """Return the run of the same architecture from random weights."""
    return RunFolder(folder.root.with_name(f"{folder.root.name}_scratch"))


def write_results(
    file: Path, overrides: Sequence[str], budgets: Sequence[str], sets: Sequence[str], out: Path
) -> None:
    """Score all networks; write the table, the numbers, the picture and the runs' records."""
    options = load_options(file, overrides).options
    teacher = Path(options.path.pretrain_network_t[0])
    weights: dict[tuple[str, str], Path] = {}
    choices = {}
    for budget in budgets:
        run, choices[budget], weights[budget, ASSEMBLED] = planned(file, overrides, budget)
        scratch = scratch_of(run.folder)
        weights[budget, COMPRESSED] = run.folder.student
        weights[budget, SCRATCH] = scratch.student
        for each in (run.folder, scratch):
            write_bytes(out / "records" / f"{each.root.name}.jsonl", each.records.read_bytes())
    report = benchmark([*weights.values(), teacher], sets, options.scale).to_json()
    scores = {
        model: {name: entry["psnr_y"] for name, entry in result["sets"].items()}
        for model, result in report["models"].items()
    }
    rows = [
        Row(
            budget,
            choice.to_json(),
            count_parameters(choice.network),
            {kind: scores[weights[budget, kind].stem] for kind in KINDS},
        )
        for budget, choice in choices.items()
    ]
    section = options.compress
    assert section is not None
    about = {
        "scale": options.scale,
        "seed": options.manual_seed,
        "candidate_iterations": section.iterations,
        "compress": section.model_dump(),
        "total_iter": options.train.total_iter,
        "batch_size": options.datasets.train.batch_size_per_gpu,
        "gt_size": options.datasets.train.gt_size,
        **provenance.stamp(),
        "date": date.today().isoformat(),
        "teacher_parameters": report["models"][teacher.stem]["parameters"],
        "psnr_y": {TEACHER: scores[teacher.stem], BICUBIC: scores[BICUBIC]},
    }
    text = json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1)
    write_text(out / "budgets.json", text + "\n")
    write_text(out / "README.md", readme(rows, about))
    draw(rows, about, out / "budgets.png")
    print(table(rows, about))


def table(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Return PSNR by budget and set, the gain over training from scratch last."""
    sets = list(about["psnr_y"][TEACHER])
    header = ["budget", "parameters", "blocks"]
    for name in sets:
        header += [f"{name} {ASSEMBLED}", SCRATCH, COMPRESSED, "gain"]
    lines: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [row.budget, row.parameters, blocks_of(row)]
        for name in sets:
            line += [row.psnr[kind][name] for kind in KINDS]
            line.append(f"{row.psnr[COMPRESSED][name] - row.psnr[SCRATCH][name]:+.2f}")
        lines.append(line)
    full: list[Cell] = [TEACHER, about["teacher_parameters"], None]
    for name in sets:
        full += [None, None, about["psnr_y"][TEACHER][name], None]
    return markdown_table(header, [*lines, full])


def blocks_of(row: Row) -> str:
    """Return blocks x width of each group, and the tail's width: ``2x16 1x32 ... tail 8``."""
    *groups, tail = (part["shape"] for part in row.choice["parts"])
    texts = [f"{shape['depth']}x{shape['width']}" if shape["depth"] else "0" for shape in groups]
    return " ".join([*texts, f"tail {tail['width']}"])


def readme(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Return the page that explains the table."""
    compress_options = about["compress"]
    return f"""# Block-wise compression: PSNR over the budget

Written by `python scripts/budgets.py`; all numbers are also in [`budgets.json`](budgets.json).

The EDSR teacher at x{about["scale"]} is cut to a budget (`lsfd compress`, BlockWise-style; how it
works: `lsfd/compression/__init__.py`). PSNR in dB on luma, {about["scale"]} pixels shaved.

{table(rows, about)}
![PSNR over parameters](budgets.png)

* *blocks*: residual blocks x inner width that were chosen for each group of
  {compress_options["group_size"]} of the teacher's blocks, and the width of the upsampler.
* *{ASSEMBLED}*: the chosen candidates put together, before any fine-tuning.
* *{SCRATCH}*: the same architecture from random weights. *{COMPRESSED}*: from what was assembled.
  Both then have {about["total_iter"]:,} steps of {about["batch_size"]} patches, the same loss (L1
  to the ground truth and to the teacher's image), learning rate and patches. *gain*: their
  difference.
* Compression has had more: each candidate was trained for {about["candidate_iterations"]} steps of
  {compress_options["batch_size"]} patches, once for all budgets; and the architecture itself is its
  choice, which training from scratch is given.
* One seed each: differences of a few hundredths of a dB are not findings. So short a training is
  far from its end; with more steps the start counts less.

What was run: seed {about["seed"]}, patches of {about["gt_size"]} pixels; {about["hardware"]};
torch {about["versions"]["torch"]}; {about["date"]}; commit {about["commit"]}.
"""


def draw(rows: Sequence[Row], about: dict[str, Any], path: Path) -> None:
    """Draw PSNR over parameters, one panel for each set."""
    sets = list(about["psnr_y"][TEACHER])
    rows = sorted(rows, key=lambda row: row.parameters)
    sizes = [row.parameters for row in rows]
    colors = dict(zip((COMPRESSED, SCRATCH, ASSEMBLED), PALETTE, strict=False))
    labels = {
        COMPRESSED: "compressed, fine-tuned",
        SCRATCH: "same architecture from scratch",
        ASSEMBLED: "compressed, not fine-tuned",
    }
    with saved_figure(path, 4.0) as figure:
        for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
            for kind, color in colors.items():
                values = [row.psnr[kind][name] for row in rows]
                axes.plot(sizes, values, "o-", color=color, markersize=4, label=labels[kind])
            full = about["teacher_parameters"], about["psnr_y"][TEACHER][name]
            axes.plot(*full, "k*", markersize=8, label=TEACHER)
            low = about["psnr_y"][BICUBIC][name]
            axes.axhline(low, color=MUTED, linewidth=0.8, linestyle="--", label=BICUBIC)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(in_thousands))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("Parameters")
            axes.set_ylabel("PSNR-Y (dB)")
            axes.set_title(name)
        lines = figure.axes[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=len(lines[0]))


def in_thousands(value: float, _: object) -> str:
    """Write 300000 as 300k."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


if __name__ == "__main__":
    sys.exit(exit_status("budgets", main))
