"""``benchmark``, ``score``, ``report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsfd.terminal import say
from lsfd.verbs.arguments import (
    SCALES,
    Verbs,
    add_device_arguments,
    add_result_arguments,
    show,
    show_benchmark,
)


def add_benchmark(verbs: Verbs) -> None:
    """Add ``lsfd benchmark``."""
    verb = verbs.add_parser(
        "benchmark", help="PSNR and SSIM of trained networks on benchmark sets, beside bicubic"
    )
    verb.add_argument("-w", "--weights", nargs="+", default=[], metavar="FILE|NAME")
    verb.add_argument(
        "--sets", nargs="+", required=True, metavar="SET", help="Set5 Set14 ..., or folders"
    )
    verb.add_argument("--scale", type=int, required=True, choices=SCALES)
    verb.add_argument(
        "--data", type=Path, metavar="DIR", help="where the sets lie (default: $LSFD_DATA)"
    )
    verb.add_argument(
        "--runs", type=int, default=3, metavar="N",
        help="time each network so often, and measure its memory; 0: neither (default: 3)",
    )  # fmt: skip
    add_result_arguments(verb)
    add_device_arguments(verb, precision="fp32")
    verb.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    from lsfd.evaluation.benchmark import benchmark

    report = benchmark(
        arguments.weights,
        arguments.sets,
        arguments.scale,
        root=arguments.data,
        device=arguments.device,
        precision=arguments.precision,
        tile=arguments.tile,
        pictures=arguments.pictures,
        runs=arguments.runs,
    )
    return show_benchmark(report, arguments)


def add_score(verbs: Verbs) -> None:
    """Add ``lsfd score``."""
    verb = verbs.add_parser("score", help="PSNR and SSIM of images that somebody else made")
    verb.add_argument("--sr", type=Path, required=True, metavar="DIR", help="upscaled images")
    verb.add_argument("--hr", type=Path, required=True, metavar="DIR", help="original images")
    verb.add_argument("--scale", type=int, required=True, help="as many pixels are shaved")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write all scores there")
    verb.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    from lsfd.evaluation.score import score_folders

    scores = score_folders(arguments.sr, arguments.hr, arguments.scale)
    return show(scores.to_markdown(), scores.to_json(), arguments.json)


def add_report(verbs: Verbs) -> None:
    """Add ``lsfd report``."""
    verb = verbs.add_parser(
        "report",
        help="one HTML file of runs: curves, scores, and pictures to compare by a slider",
        description="Score, time and show the students of some runs beside their teachers and "
        "bicubic, in one HTML file that needs no other file and no network.",
    )
    verb.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="default: report.html in the run's folder, or beside the runs",
    )  # fmt: skip
    verb.add_argument(
        "--sets", nargs="*", metavar="SET",
        help="Set5 Set14 ..., or folders (default: the runs' validation sets; without a name: "
        "curves alone)",
    )  # fmt: skip
    verb.add_argument(
        "--pictures", type=int, default=6, metavar="N", help="how many to show (default: 6)"
    )
    verb.add_argument(
        "--data", type=Path, metavar="DIR", help="where the sets lie (default: $LSFD_DATA)"
    )
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    verb.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from lsfd.training.report import report

    say(
        report(
            arguments.runs,
            arguments.output,
            sets=arguments.sets,
            pictures=arguments.pictures,
            root=arguments.data,
            device=arguments.device,
        )
    )
    return 0
