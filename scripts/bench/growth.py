"""What becomes of speed and memory as work grows: steps, images, pixels.

    LSFD_DATA=... python scripts/bench/growth.py [steps|images|pixels] [--scale-down 100]

steps   A training of 100,000 steps from photographs, its networks as small as they can be, so that
        all that is no arithmetic shows: seconds a step, and the memory of the process and its
        reader, at the end against the beginning. A fixed piece of work is timed with each
        report; seconds of an even machine are those of the steps, divided by its own.
images  100,000 images of 64 x 64 pixels, cropped from photographs and packed, against 1,000:
        samples a second through the training's own loader, opening the store, memory.
pixels  `lsfd upscale` of one image, from 1 to 400 megapixels of output, by a network as small as it
        can be: seconds for a further megapixel above 25 against below, and the peak of memory.

Each is compared with itself, so that 1 is flat and linear growth, and goals allow for noise. The
curves of the newest record of each part are drawn to `growth.png` beside the records.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import lsfd.compat  # noqa: F401

import numpy as np
import torch
from common import ROOT, Contestant, Row, keep, parser, per_unit
from growth_picture import MIDDLE, Curves, draw_newest
from numpy.typing import NDArray

from lsfd.cli import exit_status
from lsfd.config.load import load_options
from lsfd.data.patches import PatchDataset
from lsfd.evaluation.sets import data_folder
from lsfd.imaging.files import find_images, read_image, write_image
from lsfd.metrics.cost import take_turns
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student
from lsfd.training import run as training
from lsfd.training.distributed import Processes
from lsfd.training.reporter import Reporter
from lsfd.training.samples import training_loader, training_store

sys.path.insert(0, str(ROOT / "scripts"))
from upscale_anything import run as run_upscale

Pixels = NDArray[np.uint8]

OPTIONS = ROOT / "options" / "edsr_x4_lsfd.yml"
SCALE = 4
FLAT = 0.95
"""The ratio to reach: of what should not change at all."""

STEPS, REPORTS = 100_000, 100
IMAGES, IMAGE_SIDE = 100_000, 64
BATCH, BATCHES = 16, 2000
"""Samples of a batch, and batches of a round."""
MEGAPIXELS = (1, 4, 25, 100, 225, 400)
MIB = 2**20


def small_network(folder: Path, features: int, blocks: int) -> Path:
    """Write the student file of an EDSR with random weights, and return its path."""
    architecture = {
        "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": features,
        "num_block": blocks, "upscale": SCALE,
    }  # fmt: skip
    torch.manual_seed(0)
    path = folder / f"edsr_{features}x{blocks}.safetensors"
    save_student(
        path, build_network(architecture), StudentCard(architecture=architecture, scale=SCALE)
    )
    return path


def crops(side: int) -> Iterator[Pixels]:
    """Yield without end random crops of photographs, side x side."""
    generator = np.random.default_rng(0)
    photographs = [read_image(path) for path in find_images(data_folder() / "train")[:100]]
    photographs = [image for image in photographs if min(image.shape[:2]) >= side]
    while True:
        image = photographs[generator.integers(len(photographs))]
        top, left = (generator.integers(length - side + 1) for length in image.shape[:2])
        yield image[top : top + side, left : left + side]


_MEMORY = {"resident": "VmRSS", "own": "RssAnon"}


def memory_of(process: int | str = "self") -> dict[str, int]:
    """Return bytes of a process's memory, as Linux tells.

    ``resident`` is all; ``own`` is without files that are mapped, such as a packed store, which
    the system lends memory that nobody else wants.
    """
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    kib = {name: int(fields[key].split()[0]) for name, key in _MEMORY.items()}
    return {name: value * 1024 for name, value in kib.items()}


# ---- steps


def control() -> float:
    """Return the seconds that a fixed piece of work takes now: much of small, as the steps are."""
    images, weights = torch.ones(2, 4, 8, 8), torch.ones(4, 4, 3, 3, requires_grad=True)
    start = time.perf_counter()
    for _ in range(500):
        torch.nn.functional.conv2d(images, weights, padding=1).sum().backward()
    return time.perf_counter() - start


class _Watched(Reporter):
    """Notes time and memory with each report, and how fast the machine is just then."""

    noted: ClassVar[Curves] = {}

    def losses(self, iteration: int, *arguments: Any) -> None:
        """Report, and note the memory of this process and of those that read for it."""
        super().losses(iteration, *arguments)
        readers = [process.pid or "self" for process in multiprocessing.active_children()]
        held = [memory_of(process) for process in ("self", *readers)]
        values = {
            "iteration": iteration,
            "clock": time.perf_counter(),
            "processor": time.process_time(),
            "control": control(),
            "clock after": time.perf_counter(),
            "processor after": time.process_time(),
            **{name: sum(each[name] for each in held) for name in _MEMORY},
        }
        for name, value in values.items():
            self.noted.setdefault(name, []).append(value)


def watched_training(overrides: Sequence[str], result: Path) -> None:
    """Train in this process, and write what was noted."""
    training.Reporter = _Watched  # type: ignore[attr-defined]
    if training.train(OPTIONS, overrides):
        raise SystemExit("the training was stopped")
    result.write_text(json.dumps(_Watched.noted), encoding="utf-8")


def steps(rounds: int, scale_down: int) -> tuple[list[Row], dict[str, Any]]:
    """Train for long; compare the last tenth with the first. ``rounds`` does not matter."""
    total = STEPS // scale_down
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overrides = [
            "name=long", f"path.experiments_root={folder}", f"datasets.train.cache_dir={folder}",
            f"path.pretrain_network_t={small_network(folder, 6, 2)}", "network_t={type: auto}",
            "network_g.num_feat=4", "network_g.num_block=1", "datasets.train.gt_size=32",
            "datasets.train.batch_size_per_gpu=2", f"train.total_iter={total}",
            "train.warmup_iter=-1", f"val.val_freq={total}",
            f"logger.print_freq={total // REPORTS}", f"logger.save_checkpoint_freq={total // 10}",
        ]  # fmt: skip
        process = multiprocessing.get_context("spawn").Process(
            target=watched_training, args=(overrides, folder / "noted.json")
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit("steps: the training failed")
        noted = json.loads((folder / "noted.json").read_text(encoding="utf-8"))
    seconds, processor = (
        list(np.subtract(noted[clock][1:], noted[f"{clock} after"][:-1]) / (total // REPORTS))
        for clock in ("clock", "processor")
    )
    # The machine has faster and slower minutes: what it does to the steps it does to the control.
    usual = median(noted["control"])
    even = [s * usual / c for s, c in zip(seconds, noted["control"][1:], strict=True)]
    tenth = len(seconds) // 10
    work, first, last = f"{total:,} steps", "the first tenth", "the last tenth"
    rows = [
        Row(work, first, last, "step", seconds[:tenth], seconds[-tenth:], FLAT),
        Row(work, first, last, "step, of an even machine", even[:tenth], even[-tenth:], FLAT),
        Row(
            work, first, last, "step, processor time", processor[:tenth], processor[-tenth:], FLAT
        ),
        Row(
            work, first, last, "MiB of memory",
            [value / MIB for value in noted["resident"][1 : tenth + 1]],
            [value / MIB for value in noted["resident"][-tenth:]], FLAT,
        ),
    ]  # fmt: skip
    curves = {name: noted[name][1:] for name in ("iteration", "resident", "own")}
    return rows, {**curves, "seconds": seconds, "processor": processor, "even": even}


# ---- images


def sample_options(folder: str) -> Any:
    """Return the options of a training from the images of a folder."""
    return load_options(
        OPTIONS,
        [
            f"datasets.train.dataroot_gt={folder}", f"datasets.train.cache_dir={folder}.cache",
            "datasets.train.gt_size=48", f"datasets.train.batch_size_per_gpu={BATCH}",
            "datasets.train.num_worker_per_gpu=0", "train.total_iter=1000000000",
        ],
    )  # fmt: skip


def opening(folder: str) -> Callable[[], object]:
    """Prepare what a training does with packed images before the first sample."""
    options = sample_options(folder)
    return lambda: training_store(options, Processes())


def drawing(folder: str, batches: int) -> Callable[[], object]:
    """Prepare the loader; each run draws so many batches, and notes the memory."""
    options = sample_options(folder)
    dataset = PatchDataset(training_store(options, Processes()), 48, True, True, 0)
    loader = iter(training_loader(options, dataset, Processes(), 0))

    def run() -> None:
        for _ in range(batches):
            next(loader)
        Path(f"{folder}.memory").write_text(json.dumps(memory_of()), encoding="utf-8")

    return run


def images(rounds: int, scale_down: int) -> tuple[list[Row], dict[str, Any]]:
    """Draw samples from many images and from few, in turns."""
    counts = [IMAGES // 100 // scale_down, IMAGES // 10 // scale_down, IMAGES // scale_down]
    batches = max(BATCHES // scale_down, 10)
    with tempfile.TemporaryDirectory() as name:
        folders = {count: str(Path(name) / str(count)) for count in counts}
        packing = []
        for count, folder in folders.items():
            write_crops(Path(folder), count)
            start = time.perf_counter()
            opening(folder)()
            packing.append(time.perf_counter() - start)
        readers = {count: Contestant(drawing, folders[count], batches) for count in counts}
        drawn = take_turns({str(count): reader for count, reader in readers.items()}, rounds)
        openers = {str(count): Contestant(opening, folders[count]) for count in counts}
        opened = take_turns(openers, rounds)
        held = [json.loads(Path(f"{folder}.memory").read_text()) for folder in folders.values()]
    samples = {key: per_unit(seconds, batches * BATCH) for key, seconds in drawn.items()}
    few, _, many = map(str, counts)
    work, peer, ours = "packed images", f"{counts[0]:,} images", f"{counts[-1]:,} images"
    rows = [
        Row(work, peer, ours, "sample", samples[few], samples[many], FLAT),
        Row(
            work, peer, ours, "MiB of memory without mapped files",
            [held[0]["own"] / MIB], [held[-1]["own"] / MIB], FLAT,
        ),
        Row(
            work, peer, ours, "opening 1,000 images",
            per_unit(opened[few], counts[0] / 1000), per_unit(opened[many], counts[-1] / 1000),
        ),
    ]  # fmt: skip
    return rows, {
        "images": counts,
        "seconds": [median(each) for each in samples.values()],
        "opening": [median(each) for each in opened.values()],
        "packing": packing,
        **{key: [each[key] for each in held] for key in _MEMORY},
    }


def write_crops(folder: Path, count: int) -> None:
    """Write so many small images below a folder, a thousand to a folder."""
    paths = (folder / f"{number // 1000:03}" / f"{number:06}.png" for number in range(count))
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write_image, paths, islice(crops(IMAGE_SIDE), count)):
            pass


# ---- pixels


def pixels(rounds: int, scale_down: int) -> tuple[list[Row], dict[str, Any]]:
    """Upscale larger and larger images."""
    sizes = [size / scale_down for size in MEGAPIXELS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = small_network(folder, 4, 1)
        peaks: dict[str, int] = {}

        def upscale(size: float) -> None:
            status, printed, _, peaks[str(size)] = run_upscale(
                "-i", folder / f"{size}.png", "-o", folder / "out.png", "-w", weights,
                "--device", "cpu",
            )  # fmt: skip
            if status:
                raise SystemExit(f"pixels: {printed}")

        for size in sizes:
            write_image(folder / f"{size}.png", mosaic(round((size * 1e6) ** 0.5 / SCALE)))
        turns = {str(size): lambda size=size: upscale(size) for size in sizes}
        taken = take_turns(turns, rounds, warm_up=0)
    seconds = list(taken.values())
    below, above = (
        [(b - a) / (sizes[to] - sizes[of]) for a, b in zip(seconds[of], seconds[to], strict=True)]
        for of, to in ((0, MIDDLE), (MIDDLE, -1))
    )
    least, middle, most = (f"{sizes[index]:g}" for index in (0, MIDDLE, -1))
    peak = [value / MIB for value in peaks.values()]
    rows = [
        Row(
            "upscaling", f"{least} to {middle} megapixels", f"{middle} to {most}",
            "further megapixel", below, above, FLAT,
        ),
        Row(
            "upscaling", f"{middle} megapixels", f"{most} megapixels", "MiB of memory",
            [peak[MIDDLE]], [peak[-1]], FLAT,
        ),
    ]  # fmt: skip
    return rows, {
        "megapixels": sizes,
        "seconds": [median(each) for each in seconds],
        "resident": list(peaks.values()),
    }


def mosaic(side: int) -> Pixels:
    """Return an image of side x side pixels, of crops of photographs."""
    tile = min(side, 240)
    across = -(-side // tile)
    cropped = crops(tile)
    rows = [np.concatenate(list(islice(cropped, across)), axis=1) for _ in range(across)]
    return np.concatenate(rows)[:side, :side]


PARTS = {"steps": steps, "images": images, "pixels": pixels}


def main() -> None:
    """Measure, print, keep and draw."""
    arguments = parser(__doc__)
    arguments.add_argument("part", nargs="?", choices=PARTS, help="default: all, one by one")
    arguments.add_argument(
        "--scale-down", type=int, default=1, metavar="N", help="N times less work, to try it out"
    )
    given = arguments.parse_args()
    for part in [given.part] if given.part else PARTS:
        rows, curves = PARTS[part](given.rounds, given.scale_down)
        keep("growth", rows, given.output, {part: curves})
    draw_newest(given.output / "growth.jsonl")


if __name__ == "__main__":
    sys.exit(exit_status("growth", main))
