"""Train the students that come with the package: one command each.

    LSFD_DATA=... python scripts/students.py edsr-xs-x4 [...]
    python scripts/students.py                # nothing but the tables of those that are there
    LSFD_DATA=... python scripts/students.py --pictures     # crops, side by side

Each is trained as options/students/NAME.yml says (the same command goes on where it was stopped),
its weights are rounded to fp16, scored as they are shipped, and put where `--weights NAME` finds
them, with the run's records beside the table in results/students.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ship import ship

from lsfd.atomic import write_bytes, write_text
from lsfd.cli import exit_status
from lsfd.compression.budget import parse_budget
from lsfd.config.changes import FREE
from lsfd.config.load import load_options
from lsfd.errors import LsfdError, nearest
from lsfd.evaluation.benchmark import bicubic, load_upscaler
from lsfd.evaluation.cost import Upscale
from lsfd.evaluation.scores import ImageScores
from lsfd.evaluation.sets import find_set
from lsfd.networks.ready import FOLDER, ready_students
from lsfd.networks.ready_table import read_ready, ready_table
from lsfd.reporting.pictures import Result, save_comparison
from lsfd.training.compress import Compression, compress
from lsfd.training.folder import RunFolder
from lsfd.training.run import is_trained, train

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ROOT / "options" / "students"
OUT = ROOT / "results" / "students"
SETS = ("Set5", "Set14", "Urban100")
PICTURES = {"Set5": "butterfly", "Set14": "zebra", "Urban100": "img_012"}
BUDGET = "params=250k"
"""Of the students that `lsfd compress` makes: those whose option files have its section."""
LIMITS = (
    "Undoes bicubic downscaling, and neither blur nor noise nor compression. Learned from "
    "photographs; drawings and text are not among them."
)


def main() -> None:
    """Train and ship what is named; write the table."""
    names = sorted(path.stem.replace("_", "-") for path in OPTIONS.glob("*.yml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--pictures", action="store_true", help="draw crops of all x4 students")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in names:
            parser.error(f"options/students has no '{name}'{nearest(name, names)}")
    for name in arguments.names:
        run = trained(name, arguments.overrides)
        note = shlex.join(["python", "scripts/students.py", name, *changes(arguments.overrides)])
        ship(run.student, FOLDER / f"{name}.safetensors", SETS, note, LIMITS)
        write_bytes(OUT / "records" / f"{name}.jsonl", run.records.read_bytes())
    for scale in (2, 3, 4):
        students = [student for student in read_ready() if student.card.scale == scale]
        if students:
            write_text(OUT / f"table_x{scale}.md", ready_table(students))
    if arguments.pictures:
        draw_pictures(4)


def changes(overrides: Sequence[str]) -> list[str]:
    """Return the arguments that ask for those overrides again that decide what is learned."""
    decisive = [each for each in overrides if each.partition("=")[0] not in FREE]
    return ["--set", *decisive] if decisive else []


def trained(name: str, overrides: list[str]) -> RunFolder:
    """Train a student, or go on, to its end; return the folder of its run.

    Raises:
        SystemExit: a signal stopped it; it is saved.
    """
    file = OPTIONS / f"{name.replace('-', '_')}.yml"
    loaded = load_options(file, overrides)
    if loaded.options.compress is None:
        folder = RunFolder.of(loaded)
        status = 0 if is_trained(loaded) else train(file, overrides, auto_resume=True)
    else:
        folder = Compression.of(loaded).folder(parse_budget(BUDGET))
        status = compress(file, overrides, BUDGET)
    if status:
        raise SystemExit(status)
    return folder


def draw_pictures(scale: int) -> None:
    """Draw one image of each set as bicubic and all students of a scale enlarge it.

    Raises:
        LsfdError: a set, or that image of it, is not there.
    """
    files = ready_students()
    names = [student.name for student in read_ready() if student.card.scale == scale]
    upscales: dict[str, Upscale] = {"bicubic": bicubic(scale)}
    upscales |= {name: load_upscaler(files[name], scale) for name in names}
    for name_of_set, image in PICTURES.items():
        pairs = find_set(name_of_set, None, scale)
        pair = next(((lq, hr) for name, lq, hr in pairs if name == image), None)
        if pair is None:
            raise LsfdError(
                f"{name_of_set} below LSFD_DATA has no image '{image}', of which a picture is to "
                f"be drawn; complete the set with lsfd prepare --download {name_of_set}"
            )
        lq, hr = pair
        results = []
        for label, upscale in upscales.items():
            sr = upscale(lq)
            psnr = ImageScores.of(sr, hr, scale).psnr_y
            results.append(Result(label, sr, f"{psnr:.2f} dB", psnr))
        title = f"{image} ({name_of_set}), x{scale}"
        save_comparison(OUT / f"{image}_x{scale}.png", hr, results, title=title)


if __name__ == "__main__":
    sys.exit(exit_status("students", main))
