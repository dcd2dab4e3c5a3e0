"""Regenerate results/sgn: what a student conditioned on a mixture of losses makes of each mixture.

    LSFD_DATA=... OMP_NUM_THREADS=1 python scripts/mixture.py experiments/edsr_x4_sgn/*.safetensors

Moves the mixture from one objective to another and measures on benchmark sets PSNR-Y, a perceptual
distance and sharpness; beside them stand bicubic enlargement, the teacher and the student's other
objectives. Writes a strip of pictures, a curve, a table and the numbers.

The perceptual distance is LPIPS (AlexNet) where the weights of its backbone are there. Otherwise it
is the one in the teacher's features that SGN trains with, on the middle of each image: that shows
whether the student does what it was trained for, but is no independent judge.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lsfd import provenance
from lsfd.atomic import write_text
from lsfd.cli import exit_status
from lsfd.distillers.sgn import covariance, ratio
from lsfd.errors import LsfdError
from lsfd.evaluation.benchmark import bicubic, evaluate
from lsfd.evaluation.sets import BenchmarkSet, find_set
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.lpips import Lpips
from lsfd.networks.gated_edsr import GatedEDSR
from lsfd.networks.stages import auto_taps
from lsfd.networks.student_file import StudentCard, load_any, read_student
from lsfd.networks.taps import TappedNetwork
from lsfd.reporting.pictures import Result, save_comparison
from lsfd.reporting.style import MUTED, PALETTE, saved_figure
from lsfd.reporting.tables import Cell, markdown_table

ROOT = Path(__file__).resolve().parent.parent
TEACHER = ROOT / "results" / "teachers" / "edsr_x4_teacher.safetensors"
OUT = ROOT / "results" / "sgn"
TEXTURE = 3.0
"""How much covariances of features count in the teacher's distance, beside the features."""

PIECE = 96
"""Side in pixels of the middle of an image that the teacher's features compare."""

Image = NDArray[np.uint8]
Upscale = Callable[[Image], Image]


@dataclass(frozen=True)
class Measured:
    """Means over the images of a set.

    Attributes:
        psnr_y: in dB, as in all tables.
        perceptual: distance to the originals.
        sharpness: gradient energy of the images over that of the originals.
    """

    psnr_y: float
    perceptual: float
    sharpness: float


@dataclass(frozen=True)
class Row:
    """One mixture, or something to compare with; ``shares`` are empty there."""

    label: str
    shares: dict[str, float]
    sets: dict[str, Measured]


class TeacherDistance:
    """The distance in a teacher's features that SGN trains with."""

    name = "distance in the teacher's features"

    def __init__(self, teacher: torch.nn.Module) -> None:
        self._network = TappedNetwork(teacher, auto_taps(teacher))

    @torch.no_grad()
    def __call__(self, first: Image, second: Image) -> float:
        """Return the distance of the middles of two images, uint8, H x W x 3."""
        both = zip(self._features(first), self._features(second), strict=True)
        levels = [ratio(a, b) + TEXTURE * ratio(covariance(a), covariance(b)) for a, b in both]
        return float(torch.stack(levels).mean())

    def _features(self, image: Image) -> list[torch.Tensor]:
        top, left = (max(0, (side - PIECE) // 2) for side in image.shape[:2])
        piece = image[top : top + PIECE, left : left + PIECE]
        tensor = torch.from_numpy(np.ascontiguousarray(piece)).permute(2, 0, 1)[None].float() / 255
        _, features = self._network(tensor)
        return list(features.values())


class LpipsDistance(Lpips):
    """LPIPS under the name that it has in tables."""

    name = "LPIPS (AlexNet)"


Distance = TeacherDistance | LpipsDistance


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", type=Path, help="file of a student that SGN trained")
    parser.add_argument("--sets", nargs="+", default=["Set5", "Set14"], metavar="SET")
    parser.add_argument("--data", type=Path, help="where the sets lie (default: $LSFD_DATA)")
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--start", default="fidelity", help="objective where the mixture begins")
    parser.add_argument("--end", default="perceptual", help="objective where it ends")
    parser.add_argument("--steps", type=int, default=11, help="mixtures on the curve")
    parser.add_argument("--strip", type=int, default=5, help="mixtures in the strip")
    parser.add_argument("--image", help="of the strip, in the first set (default: its first one)")
    parser.add_argument("--box", type=int, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"))
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    given = parser.parse_args(arguments)

    student, card = read_student(given.student)
    if not isinstance(student, GatedEDSR):
        raise LsfdError(f"{given.student}: {type(student).__name__} has no mixture to choose")
    sets = [find_set(name, given.data, card.scale) for name in given.sets]
    teacher, _ = load_any(given.teacher)
    distance = perceptual_distance(teacher)
    along = Along(student, card.scale, given.start, given.end)

    rows = [measured(*along.at(share), sets, distance) for share in steps(given.steps)]
    compared = [measured("bicubic", {}, bicubic(card.scale), sets, distance)]
    others = [name for name in student.objectives if name not in (given.start, given.end)]
    compared += [measured(*along.only(name), sets, distance) for name in others]
    compared.append(
        measured("teacher network", {}, Upscaler(teacher, card.scale, "cpu"), sets, distance)
    )

    out = given.output
    image = draw_strip(along, sets[0], given.image, given.box, given.strip, out / "strip.png")
    draw_curve(rows, compared, along, distance.name, out / "curve.png")
    about = provenance_of(given.student, card, distance.name, image)
    record = {**about, "rows": [asdict(row) for row in (*rows, *compared)]}
    write_text(out / "mixture.json", json.dumps(record, indent=1) + "\n")
    text = table([*rows, *compared], distance.name)
    write_text(out / "README.md", readme(text, about, along))
    print(text)


def perceptual_distance(teacher: torch.nn.Module) -> Distance:
    """Return LPIPS where its backbone is there, otherwise the distance in a teacher's features."""
    try:
        return LpipsDistance()
    except LsfdError as reason:
        print(f"no LPIPS: {reason}")
        return TeacherDistance(teacher)


def steps(count: int) -> list[float]:
    """Return so many shares from 0 to 1."""
    return [float(share) for share in np.linspace(0, 1, count)]


class Along:
    """A student whose mixture moves from one objective to another."""

    def __init__(self, student: GatedEDSR, scale: int, start: str, end: str) -> None:
        self.student, self.scale, self.start, self.end = student, scale, start, end

    def at(self, share: float) -> tuple[str, dict[str, float], Upscale]:
        """Return label, mixture and upscaler for a share of the second objective."""
        shares = {self.start: 1 - share, self.end: share}
        return f"{share:.2f} {self.end}", shares, self._upscaler(shares)

    def only(self, name: str) -> tuple[str, dict[str, float], Upscale]:
        """Return the same for one objective alone."""
        return f"1.00 {name}", {name: 1.0}, self._upscaler({name: 1.0})

    def _upscaler(self, shares: Mapping[str, float]) -> Upscale:
        upscaler = Upscaler(self.student, self.scale, "cpu")

        def upscale(image: Image) -> Image:
            self.student.set_mixture(shares)
            return upscaler(image)

        return upscale


# Measuring


def measured(
    label: str,
    shares: dict[str, float],
    upscale: Upscale,
    sets: Sequence[BenchmarkSet],
    distance: Distance,
) -> Row:
    """Measure an upscaler on all sets."""
    found = {each.name: measure(upscale, each, distance) for each in sets}
    print(label, found, flush=True)
    return Row(label, shares, found)


def measure(upscale: Upscale, images: BenchmarkSet, distance: Distance) -> Measured:
    """Measure an upscaler on a set."""
    originals = {name: hr for name, _, hr in images}
    distances, ratios = [], []

    def look(name: str, sr: Image) -> None:
        distances.append(distance(sr, originals[name]))
        ratios.append(gradient_energy(sr) / gradient_energy(originals[name]))

    psnr = evaluate(upscale, images, images.scale, look).psnr_y
    return Measured(psnr, float(np.mean(distances)), float(np.mean(ratios)))


def gradient_energy(image: Image) -> float:
    """Return the mean squared difference of neighbours, over both directions and all colours."""
    values = image.astype(np.float64)
    return float(sum(np.square(np.diff(values, axis=axis)).mean() for axis in (0, 1)))


# Writing


def draw_strip(
    along: Along,
    images: BenchmarkSet,
    name: str | None,
    box: Sequence[int] | None,
    count: int,
    path: Path,
) -> str:
    """Draw one crop along the mixture and return the image's name."""
    by_name = {each: (lq, hr) for each, lq, hr in images}
    name = name or next(iter(by_name))
    if name not in by_name:
        raise LsfdError(f"--image: {images.name} has {', '.join(by_name)}, not '{name}'")
    lq, hr = by_name[name]
    results = []
    for share in steps(count):
        label, _, upscale = along.at(share)
        sr = upscale(lq)
        sharpness = gradient_energy(sr) / gradient_energy(hr)
        results.append(Result(label, sr, f"sharpness {sharpness:.2f}"))
    title = f"{name} ({images.name}), x{along.scale}"
    save_comparison(path, hr, results, None if box is None else tuple(box), title)  # type: ignore[arg-type]
    return name


def draw_curve(
    rows: Sequence[Row], compared: Sequence[Row], along: Along, distance: str, path: Path
) -> None:
    """Draw the perceptual distance, and sharpness, against PSNR: one row of panels for each set."""
    names = list(rows[0].sets)
    kinds = (("perceptual", distance), ("sharpness", "gradient energy, output / original"))
    with saved_figure(path, 3.6 * len(names)) as figure:
        panels = figure.subplots(len(names), 2, squeeze=False)
        for name, pair in zip(names, panels, strict=True):
            for axes, (kind, text) in zip(pair, kinds, strict=True):
                draw_panel(axes, rows, compared, name, kind)
                axes.set_title(name)
                axes.set_xlabel("PSNR-Y (dB)")
                axes.set_ylabel(text)
        panels[0, 0].legend(title=f"share of {along.end} at the points")


def draw_panel(
    axes: Axes, rows: Sequence[Row], compared: Sequence[Row], name: str, kind: str
) -> None:
    """Draw one measure of one set against PSNR."""
    points = [(row.sets[name].psnr_y, getattr(row.sets[name], kind)) for row in rows]
    axes.plot(*zip(*points, strict=True), "o-", color=PALETTE[0], markersize=4, label="student")
    for row, point in zip(rows, points, strict=True):
        share = row.label.split()[0]
        axes.annotate(share, point, (4, 4), textcoords="offset points", fontsize=7, color=MUTED)
    for row, color, marker in zip(compared, PALETTE[1:], "sD^vPX", strict=False):
        values = row.sets[name]
        axes.plot([values.psnr_y], [getattr(values, kind)], marker, color=color, label=row.label)


def provenance_of(path: Path, card: StudentCard, distance: str, image: str) -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "student": path.name,
        "method": card.method,
        "teacher": card.teacher,
        "iterations": card.iterations,
        "data": card.data,
        "seed": card.seed,
        "trained_at_commit": card.commit,
        "trained_on": card.hardware,
        "scale": card.scale,
        "perceptual": distance,
        "strip": image,
        **provenance.stamp(),
        "date": date.today().isoformat(),
    }


def table(rows: Sequence[Row], distance: str) -> str:
    """Return all measures of all rows."""
    sets = list(rows[0].sets)
    measures = ("PSNR-Y", distance, "sharpness")
    header = ["mixture", *(f"{name} {measure}" for name in sets for measure in measures)]
    lines: list[list[Cell]] = [
        [row.label, *(v for s in row.sets.values() for v in (s.psnr_y, s.perceptual, s.sharpness))]
        for row in rows
    ]
    digits = {column: 3 if column % 3 == 2 else 2 for column in range(1, len(header))}
    return markdown_table(header, lines, digits=digits)


def readme(text: str, about: Mapping[str, Any], along: Along) -> str:
    """Return the page that explains the table."""
    judge = (
        "LPIPS with the backbone AlexNet: lower is nearer to the original as people see it."
        if about["perceptual"] == LpipsDistance.name
        else f"the distance in the teacher's features and, {TEXTURE:g} times, their covariances, "
        "on the middle of each image: of the kind that SGN trains with, and no independent judge. "
        "Weights of a network for LPIPS were not there."
    )
    return f"""# One student, any mixture of losses

Written by `python scripts/mixture.py STUDENT.safetensors`; all numbers are also in
[`mixture.json`](mixture.json).

The student `{about["student"]}` (x{about["scale"]}, SGN-style) was trained once, for all mixtures
of {", ".join(along.student.objectives)}. Here its mixture moves from {along.start} to {along.end}:
`lsfd upscale --mix {along.start}=0.5,{along.end}=0.5` is the middle.

![one crop along the mixture](strip.png)

![perceptual distance and sharpness against PSNR](curve.png)

{text}
* *perceptual*: {judge}
* *sharpness*: gradient energy of the output over that of the original; 1 is as sharp as the
  original, noise and false detail included.

What was run: seed {about["seed"]}, {about["iterations"]} iterations on {about["data"]};
{about["trained_on"]}; torch {about["versions"]["torch"]}; {about["date"]}; commit
{about["trained_at_commit"]} (training), {about["commit"]} (measuring).
"""


if __name__ == "__main__":
    sys.exit(exit_status("mixture", main))
