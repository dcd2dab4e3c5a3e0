"""``compress``, ``prune``, ``quantize``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsfd.terminal import say
from lsfd.verbs.arguments import Verbs, add_file_arguments, add_options_arguments


def add_compress(verbs: Verbs) -> None:
    """Add ``lsfd compress``."""
    verb = verbs.add_parser(
        "compress",
        help="make a smaller network of a teacher, within a budget",
        description="Train smaller forms of the teacher's blocks, choose the best that keep the "
        "budget together, assemble and fine-tune them. The same command goes on where it was "
        "stopped; another budget takes the same candidates.",
    )
    add_options_arguments(verb)
    verb.add_argument(
        "--budget", required=True, metavar="KIND=LIMIT",
        help="params=300k, madds=12G (for an output of 1280x720), latency_ms=25@640x360",
    )  # fmt: skip
    verb.add_argument("--no-finetune", action="store_true", help="stop when it is assembled")
    verb.set_defaults(run=_compress)


def _compress(arguments: argparse.Namespace) -> int:
    from lsfd.training.compress import compress

    return compress(
        arguments.opt,
        arguments.overrides,
        arguments.budget,
        finetune=not arguments.no_finetune,
    )


def add_prune(verbs: Verbs) -> None:
    """Add ``lsfd prune``."""
    verb = verbs.add_parser(
        "prune",
        help="take the least important channels out of an EDSR",
        description="Take the channels with the smallest weights out of an EDSR's blocks and "
        "upsampler. Fine-tune what is left: options/efficient/edsr_x4_pruned.yml.",
    )
    add_file_arguments(verb, "the smaller network, .safetensors")
    verb.add_argument("--amount", type=float, default=0.5, metavar="SHARE", help="default: 0.5")
    verb.add_argument(
        "--uniform", action="store_true",
        help="take the same share out of every block, instead of ranking all blocks together",
    )  # fmt: skip
    verb.set_defaults(run=_prune)


def _prune(arguments: argparse.Namespace) -> int:
    from lsfd.networks.pruning import prune_file

    report = prune_file(
        arguments.weights, arguments.amount, arguments.output, uniform=arguments.uniform
    )
    say(report)
    return 0


def add_quantize(verbs: Verbs) -> None:
    """Add ``lsfd quantize``."""
    verb = verbs.add_parser(
        "quantize",
        help="make an EDSR compute as if in integers",
        description="Quantise an EDSR, with ranges from some images. Train it further with "
        "options/efficient/edsr_x4_quantized.yml; lsfd export makes integers of it.",
    )
    add_file_arguments(verb, "the quantised network, .safetensors")
    verb.add_argument(
        "-i", "--images", type=Path, required=True, metavar="DIR", help="such as will be enlarged"
    )
    verb.add_argument("--bits", type=int, default=8, metavar="N", help="default: 8")
    verb.set_defaults(run=_quantize)


def _quantize(arguments: argparse.Namespace) -> int:
    from lsfd.networks.post_training import quantize_file

    say(quantize_file(arguments.weights, arguments.images, arguments.bits, arguments.output))
    return 0
