"""Arguments that several verbs take, and how a table is shown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lsfd.terminal import say

if TYPE_CHECKING:
    from lsfd.evaluation.report import BenchmarkReport

SCALES = (2, 3, 4, 8)
OPTIONS_EXAMPLE = "options/edsr_x4_lsfd.yml"

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_options_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the option file and changes of it."""
    verb.add_argument(
        "-opt", "--opt", type=Path, required=True, metavar="FILE",
        help=f"option file, such as {OPTIONS_EXAMPLE}",
    )  # fmt: skip
    verb.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change options, such as train.total_iter=2000",
    )  # fmt: skip
    verb.add_argument(
        "--force_yml", nargs="+", action="extend", metavar="KEY:KEY=VALUE", dest="overrides",
        help="BasicSR's spelling of --set",
    )  # fmt: skip


def add_result_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the files that scores are written to."""
    verb.add_argument("--json", type=Path, metavar="FILE", help="write all scores there")
    verb.add_argument("--csv", type=Path, metavar="FILE", help="and there, a line for each set")
    verb.add_argument("--latex", type=Path, metavar="FILE", help="and there, as a table")
    verb.add_argument("--pictures", type=Path, metavar="DIR", help="save the upscaled images there")


def add_device_arguments(verb: argparse.ArgumentParser, precision: str) -> None:
    """Add where and how a network runs."""
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    verb.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default=precision)
    verb.add_argument(
        "--tile", type=int, metavar="N", help="upscale in tiles of N x N pixels, to save memory"
    )


def add_file_arguments(verb: argparse.ArgumentParser, result: str) -> None:
    """Add a network to read and a file to write."""
    verb.add_argument(
        "-w", "--weights", type=Path, required=True, metavar="FILE",
        help="network's file, or the name of a student that comes with lsfd",
    )  # fmt: skip
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=result)


def show(text: str, result: object, file: Path | None) -> int:
    """Print a table, write its numbers if a file is named, and return the exit status."""
    say(text)
    if file is not None:
        from lsfd.atomic import write_text

        write_text(file, json.dumps(result, indent=2) + "\n")
    return 0


def show_benchmark(report: BenchmarkReport, arguments: argparse.Namespace) -> int:
    """Print a benchmark's tables and write the files that are named; return the exit status."""
    from lsfd.atomic import write_text

    if arguments.csv is not None:
        write_text(arguments.csv, report.to_csv())
    if arguments.latex is not None:
        write_text(arguments.latex, report.to_latex())
    return show(report.to_markdown(), report.to_json(), arguments.json)
