"""``upscale``, ``export``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lsfd.verbs.arguments import Verbs, add_device_arguments, add_file_arguments


def add_upscale(verbs: Verbs) -> None:
    """Add ``lsfd upscale``."""
    verb = verbs.add_parser("upscale", help="upscale an image or a folder of images")
    verb.add_argument(
        "-i", "--input", type=Path, nargs="+", required=True, metavar="IN",
        help="files, folders, quoted patterns such as 'photos/**/*.jpg', or - for standard input",
    )  # fmt: skip
    verb.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="a folder; for one image a file, or - for standard output",
    )  # fmt: skip
    verb.add_argument(
        "-w", "--weights", required=True, metavar="FILE|NAME",
        help=".safetensors, an exported .onnx or .xml, a checkpoint, or a student's name",
    )  # fmt: skip
    verb.add_argument("--suffix", default="", help="added to each file name")
    verb.add_argument(
        "--format", metavar="EXT", help="png jpg webp tif bmp ppm (default: as the input)"
    )
    verb.add_argument("--resume", action="store_true", help="skip files that are there already")
    verb.add_argument(
        "--mix", metavar="NAME=SHARE,...",
        help="mixture of objectives, for a student that SGN trained: fidelity=0.7,perceptual=0.3",
    )  # fmt: skip
    verb.add_argument(
        "--self-ensemble", action="store_true",
        help="mean over the image mirrored and turned in eight ways: better, eight times as slow",
    )  # fmt: skip
    size = verb.add_mutually_exclusive_group()
    size.add_argument(
        "--to-size", metavar="WxH", help="shrink the results to fit into 1920x1080, say"
    )
    size.add_argument(
        "--to-scale", type=float, metavar="F", help="shrink the results to F times the input"
    )
    add_device_arguments(verb, precision="auto")
    verb.set_defaults(run=_upscale)


def _upscale(arguments: argparse.Namespace) -> int:
    from lsfd.imaging.target_size import TargetSize
    from lsfd.inference.folder import upscale_path
    from lsfd.inference.mixture import choose_mixture, parse_mixture
    from lsfd.inference.networks import open_network
    from lsfd.inference.pipes import PIPE, files_for_pipes
    from lsfd.inference.upscaler import Upscaler

    network, card = open_network(arguments.weights)
    if arguments.mix is not None:
        choose_mixture(network, parse_mixture(arguments.mix))
    upscaler = Upscaler(
        network,
        card.scale,
        device=arguments.device,
        precision=arguments.precision,
        tile=arguments.tile,
        ensemble=arguments.self_ensemble,
    )
    size = TargetSize.parse(arguments.to_size, arguments.to_scale)
    with files_for_pipes(arguments.input, arguments.output, arguments.format) as (sources, out):
        report = upscale_path(
            sources,
            out,
            upscaler,
            suffix=arguments.suffix,
            extension=arguments.format,
            resume=arguments.resume,
            size=size,
        )
    print(report, file=sys.stderr if arguments.output == PIPE else sys.stdout)
    return 1 if report.failed else 0


def add_export(verbs: Verbs) -> None:
    """Add ``lsfd export``."""
    verb = verbs.add_parser(
        "export",
        help="write a network as ONNX; a quantised one with integer kernels",
        description="Needs the extra onnx: pip install lsfd[onnx].",
    )
    add_file_arguments(verb, "the ONNX file, .onnx")
    verb.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from lsfd.inference.onnx import export_onnx
    from lsfd.networks.student_file import load_any

    export_onnx(load_any(arguments.weights)[0], arguments.output)
    print(f"{arguments.output}: for images of any size")
    return 0
