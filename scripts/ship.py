"""Turn a trained network into a file to pass on: fp16 weights, scored as they are shipped.

    python scripts/ship.py experiments/NAME/NAME.safetensors results/teachers/NAME.safetensors \
        --sets Set5 Set14 Urban100 --note "Fine-tuned from ..."

The scores in the file's card are those of the rounded weights. Sets are found through LSFD_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lsfd.cli import exit_status
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
    parser.add_argument("--limits", help="what it is not for")
    given = parser.parse_args()
    ship(given.source, given.target, given.sets, given.note, given.limits)


def ship(
    source: Path, target: Path, sets: Sequence[str], note: str | None, limits: str | None
) -> None:
    """Round the weights of a student file, score them, and write them with their card.

    Args:
        source: the student.
        target: what is written.
        sets: to score on; none: the card keeps the scores that it has.
        note: for the card, in place of its own.
        limits: the same.

    Raises:
        LsfdError: a file or set is not there.
    """
    network, card = read_student(source)
    network = network.half().float()
    upscaler = Upscaler(network, card.scale)
    scores = {}
    for name in sets:
        means = evaluate(upscaler, find_set(name, None, card.scale), card.scale)
        scores[means.name] = {
            "psnr_y": round(means.psnr_y, 4),
            "ssim_y": round(means.ssim_y, 4),
        }
        print(f"{means.name}: {means.psnr_y:.4f} dB, {means.ssim_y:.4f}")
    new = {"scores": scores, "note": note, "limits": limits}
    card = card.model_copy(update={key: value for key, value in new.items() if value})
    save_student(target, network, card, dtype=torch.float16)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(exit_status("ship", main))
