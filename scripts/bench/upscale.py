"""A folder of photographs through `lsfd upscale`, beside the ways it is usually done.

    LSFD_DATA=... python scripts/bench/upscale.py

EDSR 32 x 8 enlarges crops of the benchmarks' photographs x4, on the CPU: once all of 320 x 256
pixels, once of twenty sizes. Every contestant is a whole process, from its start to the last PNG
file: a script like those of BasicSR, the same loop around ONNX Runtime, Real-ESRGAN's tiler where
the package `realesrgan` can be imported, and `lsfd upscale` with nothing chosen. The weights
enlarge by interpolation, with a little noise: no time depends on them, but PNG files of noise
would take longer. What `lsfd upscale` loses in PSNR is measured on Set5 with trained networks.

The bound is the bare forward pass: OpenVINO on the whole processor, in bf16 where it has it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import torch
from basicsr.archs.edsr_arch import EDSR
from common import ROOT, Row, keep, parser, per_unit

from lsfd import load_student
from lsfd.cli import exit_status
from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.sets import data_folder, find_set
from lsfd.imaging.files import find_images, read_image, write_image
from lsfd.inference.edsr_graph import edsr_graph, read_edsr
from lsfd.inference.export import export
from lsfd.inference.openvino_graph import compiled_graph, computes_bf16, infer
from lsfd.metrics.cost import take_turns
from lsfd.networks.card import StudentCard
from lsfd.networks.student_file import save_student

PEERS = Path(__file__).resolve().parent / "upscale_peers.py"
WIDTH, HEIGHT, SCALE = 320, 256, 4
NETWORK = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 32, "num_block": 8, "upscale": SCALE}
TRAINED = ("edsr-s-x4", str(ROOT / "results" / "teachers" / "edsr_x4_teacher.safetensors"))

GOALS = {
    "basicsr": ("BasicSR-style script", 5.0),
    "onnxruntime": ("ONNX Runtime, fp32", 3.0),
    "realesrgan": ("Real-ESRGAN's tiler", None),
}
"""What each peer is called, and how many times quicker ours is meant to be."""

BOUND = "bare forward"

WAITING = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small process between: what Linux says of a child's memory includes that of its parent."""


def interpolating_edsr() -> EDSR:
    """Return an EDSR that repeats pixels, smoothed, and adds a little noise."""
    torch.manual_seed(0)
    network = EDSR(**NETWORK)
    with torch.no_grad():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=1e-3)
        for colour in range(3):
            network.conv_first.weight[colour, colour, 1, 1] += 1
            network.conv_last.weight[colour, colour] += 1 / 9
            for step in (network.upsample[0], network.upsample[2]):
                step.weight[4 * colour : 4 * colour + 4, colour] += 1 / 9
    return network.eval()


def write_photographs(folder: Path, images: int, sizes: bool) -> None:
    """Write crops of the benchmarks' photographs, all of one size or each of its own."""
    sources = [
        image
        for image in map(read_image, find_images(data_folder() / "benchmarks"))
        if image.shape[0] >= HEIGHT and image.shape[1] >= WIDTH
    ]
    for number in range(images):
        image = sources[number % len(sources)]
        smaller = number % 20 if sizes else 0
        height, width = HEIGHT - 7 * smaller, WIDTH - 9 * smaller
        top = 16 * (number // len(sources)) % (image.shape[0] - height + 1)
        write_image(folder / f"{number:03}.png", image[top : top + height, :width])


def forwards(student: Path, folder: Path) -> Callable[[], object]:
    """Return what runs the bare network over a folder's images, which are in memory."""
    file = read_edsr(student)
    assert file is not None
    form = "bf16" if computes_bf16() else "f32"
    request = compiled_graph(edsr_graph(file), form).create_infer_request()
    images = [
        np.ascontiguousarray(read_image(path).transpose(2, 0, 1)[None] / np.float32(255))
        for path in find_images(folder)
    ]
    return lambda: [infer(request, image) for image in images]


class Process:
    """A Python program that is run; the most memory that it ever had is kept, in bytes."""

    def __init__(self, *arguments: str | Path) -> None:
        self._command = [sys.executable, "-c", WAITING, sys.executable, *map(str, arguments)]
        self.peak = 0

    def __call__(self) -> None:
        """Run it."""
        done = subprocess.run(self._command, check=True, stdout=subprocess.PIPE, text=True)
        self.peak = max(self.peak, int(done.stdout.split()[-1]) * 1024)


def losses() -> dict[str, dict[str, float]]:
    """Return the mean PSNR-Y on Set5, in dB: by PyTorch in fp32, and as computed unasked."""
    benchmark = find_set("Set5", data_folder() / "benchmarks", SCALE)
    found = {}
    for weights in TRAINED:
        usual = load_student(weights, device="cpu", precision="fp32", engine="torch")
        engines = {"PyTorch fp32": usual, "lsfd": load_student(weights, device="cpu")}
        found[Path(weights).name] = {
            name: evaluate(upscale, benchmark, SCALE).psnr_y for name, upscale in engines.items()
        }
    return found


def contestants(folder: Path, photographs: Path) -> dict[str, Process]:
    """Return all who enlarge a folder, by name."""
    onnx, student = folder / "network.onnx", folder / "network.safetensors"
    found = {}
    for name, weights in (("basicsr", student), ("onnxruntime", onnx), ("realesrgan", student)):
        if name == "realesrgan" and find_spec("realesrgan") is None:
            print("realesrgan cannot be imported: left out (pip install --no-deps realesrgan)")
            continue
        found[name] = Process(PEERS, name, weights, photographs, folder / name)
    command = ("-m", "lsfd", "upscale", "-i", photographs, "-o", folder / "ours", "-w", student)
    found["ours"] = Process(*command, "--device", "cpu")
    return found


def measure(folder: Path, photographs: Path, what: str, rounds: int) -> tuple[list[Row], Any]:
    """Return the rows of one folder of photographs, and the largest memory of each contestant."""
    images = len(find_images(photographs))
    rivals = contestants(folder, photographs)
    bare = forwards(folder / "network.safetensors", photographs)
    bare()  # Kernels are compiled once; the processes compile theirs each time.
    seconds = take_turns({**rivals, "forward": bare}, rounds, warm_up=0)
    each = {name: per_unit(times, images) for name, times in seconds.items()}
    bound = median(each["forward"])
    rows = [
        Row(what, peer, "lsfd upscale", "image", each[name], each["ours"], goal, BOUND, bound)
        for name, (peer, goal) in GOALS.items()
        if name in rivals
    ]
    return rows, {name: process.peak for name, process in rivals.items()}


def main() -> None:
    """Measure and record."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=60, help="in each folder")
    settings = arguments.parse_args()
    rows: list[Row] = []
    details: dict[str, Any] = {"images": settings.images, "Set5 PSNR-Y": losses(), "peak bytes": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = folder / "network.safetensors"
        card = StudentCard(architecture={"type": "EDSR", **NETWORK}, scale=SCALE)
        save_student(student, interpolating_edsr(), card)
        export(student, folder / "network.onnx")
        for what, sizes in ((f"{WIDTH} x {HEIGHT} to x{SCALE}", False), ("of 20 sizes", True)):
            photographs = folder / ("sizes" if sizes else "equal")
            write_photographs(photographs, settings.images, sizes)
            found, peaks = measure(folder, photographs, what, settings.rounds)
            rows += found
            details["peak bytes"][what] = peaks
    for key in ("Set5 PSNR-Y", "peak bytes"):
        print(key, details[key])
    keep("upscale", rows, settings.output, details)


if __name__ == "__main__":
    sys.exit(exit_status("upscale", main))
