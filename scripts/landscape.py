"""Regenerate results/landscape: PSNR against time and against size, ours beside published networks.

    LSFD_DATA=... OMP_NUM_THREADS=1 python scripts/landscape.py [--scales 4] [--time | --draw]

Scores all students that come with the package on Set5, Set14 and Urban100 and times them, beside
bicubic. Of published networks the figures are cited (results/landscape/published.json); those whose
architecture we can build are timed in the same rounds, with random weights. ``--time`` measures the
times alone, and keeps the scores; ``--draw`` makes tables and pictures again of what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import Bbox
from published_networks import build_published

from lsfd import provenance
from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import BICUBIC, benchmark, bicubic, load_upscaler
from lsfd.evaluation.cost import seconds_per_megapixel
from lsfd.evaluation.report import BenchmarkReport
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.ready import ready_students
from lsfd.networks.student_file import read_student
from lsfd.reporting.style import DPI, MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import Cell, markdown_table

OUT = Path(__file__).resolve().parent.parent / "results" / "landscape"
PUBLISHED = OUT / "published.json"
SETS = ("Set5", "Set14", "Urban100")
OURS = "T91, General100, BSDS399"
"""What the students that come with the package were trained on."""
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where a name may stand: right of its point, left, above, below, at the corners."""
DISTANCES = (6, 13, 20)
"""Between point and name, in points; from the second on, a line joins them."""


@dataclass(frozen=True)
class Row:
    """One network, or bicubic.

    Attributes:
        name: of the network.
        training_data: in words; "" for bicubic.
        parameters: 0 for bicubic.
        multiply_adds: for an output of 1280 x 720 pixels.
        scores: ``psnr_y`` and ``ssim_y`` by set.
        source: of published figures; "" where all was measured here.
        seconds: for a megapixel of output, here; None: not timed.
    """

    name: str
    training_data: str
    parameters: int
    multiply_adds: int
    scores: dict[str, dict[str, float]]
    source: str = ""
    seconds: float | None = None

    @property
    def psnr(self) -> float:
        """PSNR on the first set, which is drawn."""
        return self.scores[SETS[0]]["psnr_y"]


def main() -> None:
    """Measure and write, or write only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scales", type=int, nargs="+", help="default: those of the students")
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--time", action="store_true", help="measure times, keep the scores")
    less.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--runs", type=int, default=3, help="timed rounds")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs must be 1 or more")

    record = given.output / "landscape.json"
    measured = read_record(record)
    if not given.draw:
        students = students_by_scale()
        for scale in given.scales or sorted(students):
            if scale not in students:
                there = ", ".join(f"x{each}" for each in sorted(students)) or "none"
                raise LsfdError(f"no student of x{scale} comes with lsfd; there are: {there}")
            before = measured.get(f"x{scale}", {"rows": []}) if given.time else None
            found = measure(scale, students[scale], given.device, given.runs, before)
            measured[f"x{scale}"] = found
            write_text(record, json.dumps(measured, indent=1) + "\n")  # The next takes minutes.
    if not measured:
        raise LsfdError(f"nothing has been measured: there is no {record}; leave out --draw")
    for name, entry in measured.items():
        text = page(name, entry)
        write_text(given.output / f"table_{name}.md", text)
        draw(name, entry, given.output / f"landscape_{name}.png")
        print(text)


def read_record(file: Path) -> dict[str, Any]:
    """Return what was measured, by scale; nothing where there is no record.

    Raises:
        LsfdError: it is not whole.
    """
    if not file.exists():
        return {}
    try:
        measured: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for name, entry in measured.items():  # What page and picture are made of is there.
            page(name, entry)
            note_on(rows_of(entry)[0])
    except (
        AttributeError,
        IndexError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise LsfdError(
            f"{file} is damaged, or of an older scripts/landscape.py; remove it, and measure anew "
            "without --draw"
        ) from error
    return measured


def students_by_scale() -> dict[int, list[Path]]:
    """Return the files of the students that come with the package, by scale."""
    students: dict[int, list[Path]] = {}
    for path in ready_students().values():
        students.setdefault(read_student(path)[1].scale, []).append(path)
    return students


def measure(
    scale: int,
    students: Sequence[Path],
    device: str,
    runs: int,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all rows of a scale as JSON values, with what they were measured on.

    Args:
        scale: of all of them.
        students: files.
        device: where networks run.
        runs: timed rounds.
        before: what this returned before, whose scores are kept; None: all are scored.

    Raises:
        LsfdError: a set is not found, or a figure is missing among the published ones or those of
            before.
    """
    networks = published(scale)
    stamp = {**provenance.stamp(), "date": date.today().isoformat()}
    if before is None:
        ours = measured_rows(benchmark(students, SETS, scale, device=device))
    else:
        ours = kept_rows(rows_of(before), students)
    upscales = {BICUBIC: bicubic(scale)}
    upscales |= {path.stem: load_upscaler(path, scale, device=device) for path in students}
    upscales |= {
        network["name"]: Upscaler(build_published(network["architecture"], scale), scale, device)
        for network in networks
        if network["architecture"] is not None
    }
    seconds = seconds_per_megapixel(upscales, scale, runs)
    rows = [*ours, *cited_rows(networks, scale)]
    return {
        "runs": runs,
        "precision": "fp32",
        **stamp,
        "scored": scored_by(before or stamp),
        "rows": [asdict(replace(row, seconds=seconds.get(row.name))) for row in rows],
    }


def kept_rows(rows: Sequence[Row], students: Sequence[Path]) -> list[Row]:
    """Return bicubic and our students as they were scored.

    Raises:
        LsfdError: a student was not, or has been trained anew since.
    """
    ours = {row.name: row for row in rows if not row.source}
    for path in students:
        card, row = read_student(path)[1], ours.get(path.stem)
        scores = {name: its["psnr_y"] for name, its in card.scores.items() if "psnr_y" in its}
        if row is None or any(
            abs(row.scores[name]["psnr_y"] - score) > 0.01
            for name, score in scores.items()
            if name in row.scores
        ):
            raise LsfdError(f"{path.stem} as it is now has not been scored; leave out --time")
    names = {BICUBIC, *(path.stem for path in students)}
    return [row for name, row in ours.items() if name in names]


def scored_by(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return date and commit of an entry's scores, which may be older than its times."""
    return entry.get("scored") or {name: entry[name] for name in ("date", "commit")}


def published(scale: int) -> list[dict[str, Any]]:
    """Return what :data:`PUBLISHED` has of a scale, smallest network first.

    Raises:
        LsfdError: a network lacks a set.
    """
    networks = [
        network
        for network in json.loads(PUBLISHED.read_text())["networks"]
        if str(scale) in network["scales"]
    ]
    for network in networks:
        missing = set(SETS) - set(network["scales"][str(scale)]["scores"])
        if missing:
            raise LsfdError(
                f"{PUBLISHED}: {network['name']} at x{scale} lacks {', '.join(sorted(missing))}"
            )
    return sorted(networks, key=lambda network: network["scales"][str(scale)]["parameters"])


def measured_rows(report: BenchmarkReport) -> list[Row]:
    """Return bicubic and our students, smallest first."""
    rows = [
        Row(
            row.name,
            "" if row.name == BICUBIC else OURS,
            row.cost.parameters or 0,
            row.cost.multiply_adds or 0,
            {each.name: {"psnr_y": each.psnr_y, "ssim_y": each.ssim_y} for each in row.scores},
        )
        for row in report.rows
    ]
    return sorted(rows, key=lambda row: row.parameters)


def cited_rows(networks: Sequence[Mapping[str, Any]], scale: int) -> list[Row]:
    """Return published networks."""
    return [
        Row(
            network["name"],
            network["training_data"],
            **network["scales"][str(scale)],
            source=network["source"],
        )
        for network in networks
    ]


def rows_of(entry: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one scale of the record."""
    return [Row(**row) for row in entry["rows"]]


def page(name: str, entry: Mapping[str, Any]) -> str:
    """Return the table of one scale, and what has to be known to read it."""
    rows = rows_of(entry)
    header = [name, "trained on", "parameters", "G multiply-adds", "s/megapixel"]
    cells: list[list[Cell]] = [
        [
            row.name,
            row.training_data or "-",
            row.parameters or None,
            row.multiply_adds / 1e9 or None,
            row.seconds,
            *("{psnr_y:.2f} / {ssim_y:.4f}".format(**row.scores[each]) for each in SETS),
        ]
        for row in rows
    ]
    table = markdown_table(
        [*header, *(f"{each} PSNR / SSIM" for each in SETS)], cells, None, {3: 1}
    )
    sources = "".join(f"* {row.name}: {row.source}\n" for row in rows if row.source)
    timed = ", ".join(row.name for row in rows if row.source and row.seconds is not None)
    rest = ", ".join(row.name for row in rows if row.source and row.seconds is None)
    untimed = f"Not built, and so not timed: {rest}. " if rest else ""
    scored = scored_by(entry)
    return f"""# Quality, size and time at {name}

Written by `python scripts/landscape.py`; all numbers are in [`landscape.json`](landscape.json).

{table}
![PSNR over time and over parameters](landscape_{name}.png)

PSNR in dB and SSIM on luma, {name[1:]} pixels shaved. Bicubic and our students were measured here.
The other scores were published, for networks **trained on other data, and for longer**: they are
cited, not reproduced. Where each figure was looked up: [`published.json`](published.json).
Multiply-adds are for an output of 1280 x 720 pixels, seconds for a megapixel of output. Times are
medians of {entry["runs"]} runs in PyTorch ({entry["versions"]["torch"]}, {entry["precision"]}) on
{entry["hardware"]}; of the published ones {timed or "none"}: the architecture, with random weights.
{untimed}Times are of {entry["date"]}, commit
{entry["commit"]}, scores of {scored["date"]}, commit {scored["commit"]}.

{sources}"""


def note_on(low: Row) -> str:
    """Return what a picture says of bicubic."""
    return f"below: bicubic, {low.psnr:.2f} dB, {low.seconds:.2f} s/megapixel"


def draw(name: str, entry: Mapping[str, Any], path: Path) -> None:
    """Draw PSNR on the first set over seconds and over parameters.

    Bicubic, decibels below, is a line of text: the networks would share a corner beside it.
    """
    low, *rows = rows_of(entry)
    cited = list(dict.fromkeys(row.training_data for row in rows if row.source))
    note = note_on(low)
    with saved_figure(path, 4.6, f"PSNR on {SETS[0]}, {name}") as figure:
        time, size = figure.subplots(1, 2, sharey=True)
        timed = [(row, row.seconds) for row in rows if row.seconds is not None]
        panels = ((time, timed), (size, [(row, float(row.parameters)) for row in rows]))
        for axes, points in panels:
            for row, x in points:
                axes.plot(x, row.psnr, **look(row, cited))
            axes.set_xscale("log")
            axes.margins(x=0.16, y=0.12)
            axes.xaxis.set_major_locator(LogLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(short))
            axes.text(0.98, 0.02, note, transform=axes.transAxes, ha="right", color=MUTED)
        time.set_ylabel("PSNR-Y (dB)")
        time.set_xlabel(
            f"Seconds per megapixel of output\n({entry['hardware']}, PyTorch {entry['precision']};"
            "\npublished networks: their architecture, random weights)"
        )
        size.set_xlabel("Parameters")
        handles = {row.training_data: Line2D([], [], **look(row, cited)) for row in rows}
        labels = [
            f"{'published' if data in cited else 'ours'}, trained on {data}" for data in handles
        ]
        figure.legend(handles.values(), labels, loc="outside lower left")
        figure.draw_without_rendering()  # Names need to know where the points end up.
        for axes, points in panels:
            label_points(axes, points, cited, f"-{name}")


def look(row: Row, cited: Sequence[str]) -> dict[str, Any]:
    """Return how a row is drawn: as ours, or as one for the data that it was trained on."""
    index = cited.index(row.training_data) if row.source else -1
    color = PALETTE[index + 1]
    face = "white" if row.source else color
    marker = "osD^v"[index + 1]
    return {"color": color, "markerfacecolor": face, "marker": marker, "linestyle": "none"}


def label_points(
    axes: Axes, points: Sequence[tuple[Row, float]], cited: Sequence[str], suffix: str
) -> None:
    """Write names, without a suffix, where they cover no point and no other name."""
    half = 4.5 / 72 * DPI  # Points to pixels.
    taken = [text.get_window_extent() for text in axes.texts]
    for x, y in axes.transData.transform([(x, row.psnr) for row, x in points]):
        taken.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    for row, x in points:
        color = look(row, cited)["color"]
        for right, up in [(d * right, d * up) for d in DISTANCES for right, up in SIDES]:
            label = axes.annotate(
                row.name.removesuffix(suffix), (x, row.psnr), (right, up),
                textcoords="offset points", color=color, fontsize=8,
                ha="left" if right > 0 else "right" if right else "center",
                va="bottom" if up > 0 else "top" if up else "center",
            )  # fmt: skip
            box = label.get_window_extent().padded(half / 4)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            label.remove()
        else:
            axes.add_artist(label)  # No free place: over another, but there.
        taken.append(box)
        if max(abs(right), abs(up)) > DISTANCES[0]:
            line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0}
            axes.annotate(
                "", (x, row.psnr), (right, up), textcoords="offset points", arrowprops=line
            )


def short(value: float, _: object) -> str:
    """Write 100000 as 100k, and 0.1 as it is."""
    if value < 1e4:
        return f"{value:g}"
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


if __name__ == "__main__":
    sys.exit(exit_status("landscape", main))
