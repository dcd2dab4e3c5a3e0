"""Whether long work creeps: hours of training, and thousands of images in one `lsfd upscale`.

    LSFD_DATA=... python scripts/soak/creep.py [train|upscale] [--hours 2] [--images 10000]

train    The training of an option file, all of it as users run it: a worker that reads, validation,
         checkpoints, pictures. It is stopped by SIGTERM when its time is over.
upscale  A folder of small crops of photographs, enlarged by a shipped student.

A look from outside, hundreds of times, notes the memory, the open files and the threads of the
process and its children, and the processor's time for a step or an image. Their last quarter is
set against their second: in the first one caches still fill. The newest curves of both are drawn
to `creep.png` beside the records. Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
from creep_picture import draw_newest
from evidence import ROOT, keep, parser

from lsfd.cli import exit_status
from lsfd.evaluation.sets import data_folder
from lsfd.imaging.files import find_images, read_image, write_image
from lsfd.training.records import read_records

OPTIONS = ROOT / "options" / "edsr_x4_lsfd.yml"
STUDENT = "edsr-s-x4"
SIDE = 64
"""Of the images that are enlarged, in pixels."""
NAME = "creep"

Curves = dict[str, list[float]]


def main() -> None:
    """Run, record and draw."""
    arguments = parser(__doc__)
    arguments.add_argument("part", nargs="?", choices=PARTS, help="default: both, one by one")
    arguments.add_argument("--hours", type=float, default=2, help="of training")
    arguments.add_argument("--images", type=int, default=10_000, help="to enlarge")
    given = arguments.parse_args()
    for part in [given.part] if given.part else PARTS:
        with tempfile.TemporaryDirectory() as folder:
            curves = PARTS[part](Path(folder), given)
        ratios = {f"{part}: {name}, late / early": value for name, value in growth(curves).items()}
        keep(NAME, given.seed, {**amounts(part, curves), **ratios, part: curves}, given.output)
    draw_newest(given.output / f"{NAME}.jsonl")


def train(folder: Path, given: Any) -> Curves:
    """Train for hours."""
    seconds = given.hours * 3600
    command = [
        sys.executable, "-m", "lsfd", "train", "-opt", str(OPTIONS), "--set",
        f"name={NAME}", f"manual_seed={given.seed}", f"path.experiments_root={folder}",
        f"datasets.train.cache_dir={folder}", "train.total_iter=100000000",
        "logger.print_freq=10", "logger.save_checkpoint_freq=500", "val.val_freq=500",
    ]  # fmt: skip
    records = folder / NAME / "metrics.jsonl"

    def steps() -> int:
        return max((record.get("iteration", 0) for record in read_records(records)), default=0)

    return watched(command, steps, seconds / 240, 128 + signal.SIGTERM, seconds)


def upscale(folder: Path, given: Any) -> Curves:
    """Enlarge a folder of images."""
    images, output = folder / "images", folder / "enlarged"
    generator = np.random.default_rng(given.seed)
    files = find_images(data_folder() / "train")
    for number, crop in zip(range(given.images), crops(files, generator), strict=False):
        write_image(images / f"{number:05}.png", crop)
    command = [
        sys.executable, "-m", "lsfd", "upscale", "-w", STUDENT, "-i", str(images),
        "-o", str(output), "--device", "cpu",
    ]  # fmt: skip

    def done() -> int:
        return sum(1 for _ in os.scandir(output)) if output.exists() else 0

    return watched(command, done, max(0.5, given.images / 2000), 0)


def crops(files: list[Path], generator: np.random.Generator) -> Iterator[Any]:
    """Yield crops of photographs without end."""
    photographs = [read_image(path) for path in files[:50]]
    while True:
        image = photographs[generator.integers(len(photographs))]
        top, left = (generator.integers(max(length - SIDE, 0) + 1) for length in image.shape[:2])
        yield image[top : top + SIDE, left : left + SIDE]


def watched(
    command: list[str],
    done: Callable[[], int],
    interval: float,
    status: int,
    seconds: float = float("inf"),
) -> Curves:
    """Run a command and return what a look every ``interval`` seconds saw.

    Args:
        command: is stopped by SIGTERM after so many seconds.
        done: returns how many steps or images are finished.
        interval: seconds between two looks.
        status: the exit status that is expected.
        seconds: after which it is stopped.

    Raises:
        SystemExit: the command ended otherwise.
    """
    curves: Curves = {}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        start = time.monotonic()
        while process.poll() is None:
            look = glance(process.pid)
            if look and (count := done()):
                values = {"seconds": time.monotonic() - start, "done": count, **look}
                for name, value in values.items():
                    curves.setdefault(name, []).append(value)
            time.sleep(interval)
            if time.monotonic() - start > seconds:
                process.send_signal(signal.SIGTERM)
                process.wait()
        if process.returncode != status:
            output.seek(0)
            raise SystemExit(f"{command[3]} ended with {process.returncode}: {output.read()!r}")
    return curves


def glance(process: int) -> dict[str, float]:
    """Return memory in MiB, files, threads and processor seconds of a process and its children.

    ``own`` is memory without files that are mapped. Nothing is returned when the process ends
    meanwhile.
    """
    sums = dict.fromkeys(("resident", "own", "files", "threads", "processor"), 0.0)
    try:
        for each in family(process):
            folder = Path("/proc", str(each))
            lines = (folder / "status").read_text(encoding="utf-8").splitlines()
            fields = dict(line.split(":", 1) for line in lines)
            sums["resident"] += int(fields["VmRSS"].split()[0]) / 1024
            sums["own"] += int(fields["RssAnon"].split()[0]) / 1024
            sums["threads"] += int(fields["Threads"])
            sums["files"] += len(list((folder / "fd").iterdir()))
            times = (folder / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[11:13]
            sums["processor"] += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    except (OSError, KeyError):
        return {}
    return sums


def family(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = Path("/proc", str(process), "task", str(process), "children")
    found = [int(child) for child in children.read_text(encoding="utf-8").split()]
    return [process, *(each for child in found for each in family(child))]


def growth(curves: Curves) -> dict[str, float]:
    """Return how many times as much of each thing there is late as early."""
    quarter = len(curves["done"]) // 4
    steps, processor = np.diff(curves["done"]), np.diff(curves["processor"])
    each: dict[str, list[float]] = {
        "resident": curves["resident"],
        "own": curves["own"],
        "files": curves["files"],
        "threads": curves["threads"],
        "processor time": [p / s for p, s in zip(processor, steps, strict=True) if s],
    }
    return {name: _late_by_early(values, quarter) for name, values in each.items()}


def _late_by_early(values: Sequence[float], quarter: int) -> float:
    return round(median(values[-quarter:]) / median(values[quarter : 2 * quarter]), 3)


def amounts(part: str, curves: Curves) -> dict[str, float]:
    """Return how much was done."""
    unit = {"train": "steps", "upscale": "images"}[part]
    return {unit: curves["done"][-1], f"{part}: hours": round(curves["seconds"][-1] / 3600, 3)}


PARTS = {"train": train, "upscale": upscale}


if __name__ == "__main__":
    sys.exit(exit_status("creep", main))
