"""Training samples of one process, beside BasicSR's PairedImageDataset.

    LSFD_DATA=... python scripts/bench/samples.py

A sample is a pair of patches, 48 x 48 and 192 x 192 pixels, cut and turned at random. Each
contestant makes batches of 16 as its training loop wants them: float32 in 0..1 (of this project:
channels-last, from the store of pixels). The peer reads the same image pairs, from PNG files or
from LMDB, which `lsfd prepare` and BasicSR's own tool made beforehand. All files lie in the
memory of the operating system: no disk is measured. The large images are of 2040 x 1356 pixels,
as DIV2K's are, and made of the training images, side by side. The bound is copying 16 such
patches from one place in memory to another.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from common import Contestant, Row, keep, parser, per_unit
from numpy.typing import NDArray
from torch.utils.data import default_collate

from lsfd.cli import exit_status
from lsfd.data.pack import build_store
from lsfd.data.patches import PatchDataset, batch_of
from lsfd.data.prepare import prepare_pairs
from lsfd.data.store import open_store
from lsfd.evaluation.sets import data_folder
from lsfd.imaging.files import find_images, read_image, write_image
from lsfd.metrics.cost import take_turns

SCALE, SIDE, BATCH = 4, 192, 16
LARGE, LARGE_COUNT = (1356, 2040), 24
PEER_BATCHES, OUR_BATCHES = 4, 100
"""Batches in each turn."""


def main() -> None:
    """Measure, print and keep."""
    arguments = parser(__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, goal, images) in enumerate(image_sets()):
            root = Path(folder) / str(number)
            prepare(images, root)
            rows += measure(name, goal, root, arguments.rounds)
    keep("samples", rows, arguments.output)


def image_sets() -> Iterator[tuple[str, float, Iterator[NDArray[np.uint8]]]]:
    """Yield both sets of images, with names and goals."""
    files = find_images(data_folder() / "train")
    fitting = (image for image in map(read_image, files) if min(image.shape[:2]) >= SIDE)
    yield f"those of {len(files)} images that a patch fits into", 15, fitting
    yield f"{LARGE_COUNT} images of {LARGE[1]} x {LARGE[0]}", 100, mosaics(files)


def mosaics(files: list[Path]) -> Iterator[NDArray[np.uint8]]:
    """Yield large images, each tiled with training images."""
    endless = itertools.cycle(files)
    for _ in range(LARGE_COUNT):
        canvas = np.zeros((*LARGE, 3), np.uint8)
        for top in range(0, LARGE[0], 300):
            for left in range(0, LARGE[1], 300):
                place = canvas[top : top + 300, left : left + 300]
                image = read_image(next(endless))[: place.shape[0], : place.shape[1]]
                place[: image.shape[0], : image.shape[1]] = image
        yield canvas


def prepare(images: Iterator[NDArray[np.uint8]], root: Path) -> None:
    """Write the images as PNG, with their LR images, as LMDB, and as a store."""
    for number, image in enumerate(images):
        write_image(root / "originals" / f"{number:04}.png", image)
    prepare_pairs(root / "originals", root / "pairs", [SCALE])
    hr, lq = root / "pairs" / "HR", root / "pairs" / "LR_bicubic" / f"X{SCALE}"
    for source in (hr, lq):
        names = sorted(path.name for path in source.iterdir())
        keys = [Path(name).stem for name in names]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_lmdb_from_imgs(str(source), f"{root}/{source.name}.lmdb", names, keys)
    build_store(root / "store", [hr], lq, SCALE, SIDE)


def measure(name: str, goal: float, root: Path, rounds: int) -> list[Row]:
    """Return the rows of one set of images."""
    contestants = {
        "PNG": Contestant(peer, root, False),
        "LMDB": Contestant(peer, root, True),
        "lsfd": Contestant(ours, root),
        "copy": Contestant(bare_copies),
    }
    seconds = take_turns(contestants, rounds)
    own = per_unit(seconds["lsfd"], OUR_BATCHES * BATCH)
    bound = min(seconds["copy"]) / (OUR_BATCHES * BATCH)
    return [
        Row(
            f"samples of {name}", f"PairedImageDataset, {kind}", "lsfd, store", "sample",
            per_unit(seconds[kind], PEER_BATCHES * BATCH), own, goal, "copying its pixels", bound,
        )
        for kind in ("PNG", "LMDB")
    ]  # fmt: skip


def peer(root: Path, lmdb: bool) -> Callable[[], object]:
    """Prepare BasicSR's data set, on files or on LMDB."""
    pairs = root / "pairs"
    folders = [pairs / "HR", pairs / "LR_bicubic" / f"X{SCALE}"]
    if lmdb:
        folders = [root / f"{folder.name}.lmdb" for folder in folders]
    options: dict[str, Any] = {
        "io_backend": {"type": "lmdb" if lmdb else "disk"},
        "dataroot_gt": str(folders[0]),
        "dataroot_lq": str(folders[1]),
        "filename_tmpl": "{}",
        "phase": "train",
        "scale": SCALE,
        "gt_size": SIDE,
        "use_hflip": True,
        "use_rot": True,
    }
    dataset = PairedImageDataset(options)
    chosen = random.Random(0)

    def run() -> None:
        for _ in range(PEER_BATCHES):
            default_collate([dataset[chosen.randrange(len(dataset))] for _ in range(BATCH)])

    return run


def ours(root: Path) -> Callable[[], object]:
    """Prepare this project's samples."""
    dataset = PatchDataset(open_store(root / "store"), SIDE, True, True, 0)
    numbers = itertools.count()

    def run() -> None:
        for _ in range(OUR_BATCHES):
            batch = batch_of([dataset[next(numbers)] for _ in range(BATCH)])
            for images in batch.values():
                images.float().div_(255)

    return run


def bare_copies() -> Callable[[], object]:
    """Prepare copying as many pixels as the samples have."""
    source = torch.zeros(BATCH, SIDE * SIDE + (SIDE // SCALE) ** 2, 3, dtype=torch.uint8)

    def run() -> None:
        for _ in range(OUR_BATCHES):
            source.clone()

    return run


if __name__ == "__main__":
    sys.exit(exit_status("samples", main))
