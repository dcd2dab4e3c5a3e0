"""``students``, ``upscale``, ``export``, ``web``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lsfd.terminal import say
from lsfd.verbs.arguments import Verbs, add_device_arguments


def add_students(verbs: Verbs) -> None:
    """Add ``lsfd students``."""
    verb = verbs.add_parser("students", help="list the trained students that come with lsfd")
    verb.add_argument(
        "name", nargs="?", metavar="NAME", help="all that one of them says about itself"
    )
    verb.set_defaults(run=_students)


def _students(arguments: argparse.Namespace) -> int:
    from lsfd.networks.ready_table import describe, read_ready, ready_table

    say(describe(arguments.name) if arguments.name else ready_table(read_ready()), end="")
    return 0


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
        "--shard", metavar="I/N",
        help="upscale only the I-th of N shares of the images, as one of N processes",
    )  # fmt: skip
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
    verb.add_argument(
        "--engine", choices=("auto", "openvino", "torch"), default="auto",
        help="what computes: OpenVINO on a CPU where it is installed, otherwise PyTorch",
    )  # fmt: skip
    verb.set_defaults(run=_upscale)


def _upscale(arguments: argparse.Namespace) -> int:
    from lsfd.imaging.target_size import TargetSize
    from lsfd.inference.engines import open_upscaler
    from lsfd.inference.folder import upscale_path
    from lsfd.inference.pipes import PIPE, files_for_pipes
    from lsfd.shard import Shard

    shard = None if arguments.shard is None else Shard.parse(arguments.shard)
    mix = None
    if arguments.mix is not None:
        from lsfd.inference.mixture import parse_mixture

        mix = parse_mixture(arguments.mix)
    upscaler, _ = open_upscaler(
        arguments.weights,
        device=arguments.device,
        precision=arguments.precision,
        tile=arguments.tile,
        ensemble=arguments.self_ensemble,
        mix=mix,
        engine=arguments.engine,
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
            shard=shard,
        )
    say(report, file=sys.stderr if arguments.output == PIPE else sys.stdout)
    return 1 if report.failed else 0


def add_export(verbs: Verbs) -> None:
    """Add ``lsfd export``."""
    verb = verbs.add_parser(
        "export",
        help="write a network as ONNX, OpenVINO, TorchScript or safetensors",
        description="Write a network for other programs, check that they will compute the same, "
        "and say by how much they differ. Files take and give RGB in 0..1, of any number and size.",
    )
    verb.add_argument("-w", "--weights", required=True, metavar="FILE|NAME")
    verb.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help=".onnx, .xml (OpenVINO), .pt (TorchScript) or .safetensors",
    )  # fmt: skip
    verb.add_argument(
        "--format", metavar="NAME",
        help="onnx openvino torchscript safetensors (default: by the name of OUT)",
    )  # fmt: skip
    precision = verb.add_mutually_exclusive_group()
    precision.add_argument(
        "--half", dest="precision", action="store_const", const="fp16",
        help="weights in half precision: half the size",
    )  # fmt: skip
    precision.add_argument(
        "--int8", dest="precision", action="store_const", const="int8",
        help="8-bit integers, ranges from photographs; says what they cost in PSNR",
    )  # fmt: skip
    verb.add_argument(
        "--images", type=Path, metavar="DIR",
        help="photographs for --int8, in high resolution (default: those that scikit-image ships)",
    )  # fmt: skip
    verb.set_defaults(run=_export, precision="fp32")


def _export(arguments: argparse.Namespace) -> int:
    from lsfd.inference.export import export

    say(
        export(
            arguments.weights,
            arguments.output,
            arguments.format,
            arguments.precision,
            arguments.images,
        )
    )
    return 0


def add_web(verbs: Verbs) -> None:
    """Add ``lsfd web``."""
    verb = verbs.add_parser(
        "web",
        help="make a web page in which a student runs in the browser",
        description="Write a folder that any web server can host: a page where a student enlarges "
        "pictures in the browser, by WebGPU or WASM, and nothing leaves the machine. The first "
        "time npm fetches ONNX Runtime; afterwards no network is needed.",
    )
    verb.add_argument("-w", "--weights", required=True, metavar="FILE|NAME")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument(
        "--serve", type=int, nargs="?", const=8765, metavar="PORT",
        help="then show it in this machine's browsers (default port: 8765; 0: any that is free)",
    )  # fmt: skip
    verb.set_defaults(run=_web)


def _web(arguments: argparse.Namespace) -> int:
    from lsfd.web.build import build_page

    say(build_page(arguments.weights, arguments.output))
    if arguments.serve is not None:
        from lsfd.web.server import serve

        serve(arguments.output, arguments.serve)
    return 0
