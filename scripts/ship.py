"""Turn a trained network into a file to pass on: fp16 weights, scored as they are shipped.

    python scripts/ship.py experiments/NAME/NAME.safetensors results/teachers/NAME.safetensors \
        --sets Set5 Set14 Urban100 --note "Fine-tuned from ..."

The scores in the file's card are those of the rounded weights. Sets are found through LSFD_DATA.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lsfd.evaluation.benchmark import evaluate
from lsfd.evaluation.sets import find_set
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.student_file import read_student, save_student


def main() -> None:
    """Read, round, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--sets", nargs="+", default=[], metavar="SET")
    parser.add_argument("--note", help="what else its users should know")
    arguments = parser.parse_args()

    network, card = read_student(arguments.source)
    network = network.half().float()
    upscaler = Upscaler(network, card.scale)
    scores = {}
    for name in arguments.sets:
        means = evaluate(upscaler, find_set(name, None, card.scale), card.scale)
        scores[means.name] = {
            "psnr_y": round(means.psnr_y, 4),
            "ssim_y": round(means.ssim_y, 4),
        }
        print(f"{means.name}: {means.psnr_y:.4f} dB, {means.ssim_y:.4f}")
    note = arguments.note or card.note
    card = card.model_copy(update={"scores": scores or card.scores, "note": note})
    save_student(arguments.target, network, card, dtype=torch.float16)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
