"""The console command ``lsfd``: parses arguments, calls one function, prints what it returns.

Heavy imports happen inside a verb, so that ``lsfd --help`` is instant.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lsfd import __version__
from lsfd.errors import LsfdError

if TYPE_CHECKING:
    from lsfd.evaluation.report import BenchmarkReport

USAGE_ERROR = 2
SCALES = (2, 3, 4, 8)
OPTIONS_EXAMPLE = "options/edsr_x4_lsfd.yml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    A mistake that the user can mend ends in one sentence on standard error and status 2.
    """
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except LsfdError as error:
        print(f"lsfd: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("lsfd: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lsfd", description="Distil large super-resolution networks into small fast ones."
    )
    parser.add_argument("--version", action="version", version=f"lsfd {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_prepare(verbs)
    _add_train(verbs)
    _add_test(verbs)
    _add_benchmark(verbs)
    _add_score(verbs)
    _add_upscale(verbs)
    _add_methods(verbs)
    _add_compare(verbs)
    _add_compress(verbs)
    _add_prune(verbs)
    _add_quantize(verbs)
    _add_export(verbs)
    return parser


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_prepare(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "prepare",
        help="make low/high-resolution pairs from a folder of images, or get a public set",
        description="Make OUT/HR and OUT/LR_bicubic/X4 (MATLAB-exact bicubic) from any folder of "
        "images; or download a public set.",
    )
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument("-i", "--input", type=Path, metavar="DIR", help="folder of images")
    source.add_argument(
        "--download",
        nargs="+",
        metavar="SET",
        help="public sets: DIV2K_train DIV2K_valid Set5 Set14 B100 Urban100",
    )
    source.add_argument(
        "--embedded", action="store_true", help="photographs that scikit-image ships, no download"
    )
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    verb.add_argument("--scale", type=int, nargs="+", choices=SCALES, default=[4])
    degradation = verb.add_argument_group(
        "degradation", "what happens to the low-resolution images of -i beside the bicubic"
    )
    degradation.add_argument(
        "--blur", type=float, metavar="SIGMA", help="Gaussian before it, in high-resolution pixels"
    )
    degradation.add_argument(
        "--noise", type=float, metavar="SIGMA", help="Gaussian after it, in grey levels"
    )
    degradation.add_argument("--jpeg", type=int, metavar="QUALITY", help="1 to 100, at the end")
    verb.add_argument("--workers", type=int, help="processes (default: one for each core)")
    verb.set_defaults(run=_prepare)


def _prepare(arguments: argparse.Namespace) -> int:
    strengths = {name: getattr(arguments, name) for name in ("blur", "noise", "jpeg")}
    degrades = any(value is not None for value in strengths.values())
    if degrades and arguments.input is None:
        raise LsfdError("--blur, --noise and --jpeg go with -i, the images that are degraded")
    if arguments.embedded:
        from lsfd.data.embedded import write_embedded

        write_embedded(arguments.output)
        return 0
    if arguments.download:
        from lsfd.data.download import fetch_set

        for name in arguments.download:
            print(fetch_set(name, arguments.output))
        return 0
    from lsfd.data.prepare import prepare_pairs
    from lsfd.imaging.degradation import Degradation

    report = prepare_pairs(
        arguments.input,
        arguments.output,
        arguments.scale,
        workers=arguments.workers,
        degradation=Degradation(**strengths) if degrades else None,
    )
    print(report)
    return 0


def _add_options_arguments(verb: argparse.ArgumentParser) -> None:
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


def _add_train(verbs: Verbs) -> None:
    verb = verbs.add_parser("train", help="train a student (or a teacher) from an option file")
    _add_options_arguments(verb)
    verb.add_argument("--auto_resume", action="store_true", help="go on from the newest checkpoint")
    verb.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    verb.add_argument(
        "--debug", action="store_true", help="log every step; validate and save every 8"
    )
    verb.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    verb.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from lsfd.training.run import train

    return train(
        arguments.opt,
        arguments.overrides,
        auto_resume=arguments.auto_resume,
        launcher=arguments.launcher,
        debug=arguments.debug,
    )


def _add_test(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "test", help="score a run's student on the validation sets of its option file"
    )
    _add_options_arguments(verb)
    verb.add_argument("--weights", type=Path, help="default: the run's finished student")
    _add_result_arguments(verb)
    verb.add_argument("--launcher", choices=("none",), default="none", help=argparse.SUPPRESS)
    verb.set_defaults(run=_test)


def _test(arguments: argparse.Namespace) -> int:
    from lsfd.training.test import test

    report = test(
        arguments.opt, arguments.overrides, weights=arguments.weights, pictures=arguments.pictures
    )
    return _show_benchmark(report, arguments)


def _add_result_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", type=Path, metavar="FILE", help="write all scores there")
    verb.add_argument("--csv", type=Path, metavar="FILE", help="and there, a line for each set")
    verb.add_argument("--latex", type=Path, metavar="FILE", help="and there, as a table")
    verb.add_argument("--pictures", type=Path, metavar="DIR", help="save the upscaled images there")


def _add_device_arguments(verb: argparse.ArgumentParser, precision: str) -> None:
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    verb.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default=precision)
    verb.add_argument(
        "--tile", type=int, metavar="N", help="upscale in tiles of N x N pixels, to save memory"
    )


def _add_benchmark(verbs: Verbs) -> None:
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
    _add_result_arguments(verb)
    _add_device_arguments(verb, precision="fp32")
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
    return _show_benchmark(report, arguments)


def _show_benchmark(report: BenchmarkReport, arguments: argparse.Namespace) -> int:
    from lsfd.atomic import write_text

    if arguments.csv is not None:
        write_text(arguments.csv, report.to_csv())
    if arguments.latex is not None:
        write_text(arguments.latex, report.to_latex())
    return _show(report.to_markdown(), report.to_json(), arguments.json)


def _add_score(verbs: Verbs) -> None:
    verb = verbs.add_parser("score", help="PSNR and SSIM of images that somebody else made")
    verb.add_argument("--sr", type=Path, required=True, metavar="DIR", help="upscaled images")
    verb.add_argument("--hr", type=Path, required=True, metavar="DIR", help="original images")
    verb.add_argument("--scale", type=int, required=True, help="as many pixels are shaved")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write all scores there")
    verb.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    from lsfd.evaluation.score import score_folders

    scores = score_folders(arguments.sr, arguments.hr, arguments.scale)
    return _show(scores.to_markdown(), scores.to_json(), arguments.json)


def _add_upscale(verbs: Verbs) -> None:
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
    _add_device_arguments(verb, precision="auto")
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


def _add_methods(verbs: Verbs) -> None:
    verb = verbs.add_parser("methods", help="list the distillation methods")
    verb.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> int:
    from lsfd.training.methods import methods_table

    print(methods_table(), end="")
    return 0


def _add_compare(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "compare",
        help="train several methods with several seeds and compare them",
        description="Train methods x seeds at equal budget from one option file, then write a "
        "table and a picture. The same command goes on where it was stopped.",
    )
    _add_options_arguments(verb)
    verb.add_argument(
        "--methods", nargs="+", metavar="NAME", help="default: those of the option file"
    )
    verb.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="default: those of the option file"
    )
    verb.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: beside the runs")
    verb.add_argument("--jobs", type=int, default=1, metavar="N", help="runs that train at once")
    verb.add_argument(
        "--no_teacher_cache", action="store_true",
        help="run the teachers in every run, instead of keeping what they gave on disk",
    )  # fmt: skip
    verb.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from lsfd.training.compare import compare

    return compare(
        arguments.opt,
        arguments.overrides,
        arguments.methods,
        arguments.seeds,
        output=arguments.output,
        jobs=arguments.jobs,
        keep_teacher_results=not arguments.no_teacher_cache,
    )


def _add_compress(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "compress",
        help="make a smaller network of a teacher, within a budget",
        description="Train smaller forms of the teacher's blocks, choose the best that keep the "
        "budget together, assemble and fine-tune them. The same command goes on where it was "
        "stopped; another budget takes the same candidates.",
    )
    _add_options_arguments(verb)
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


def _add_file_arguments(verb: argparse.ArgumentParser, result: str) -> None:
    verb.add_argument("-w", "--weights", type=Path, required=True, metavar="FILE")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=result)


def _add_prune(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "prune",
        help="take the least important channels out of an EDSR",
        description="Take the channels with the smallest weights out of an EDSR's blocks and "
        "upsampler. Fine-tune what is left: options/efficient/edsr_x4_pruned.yml.",
    )
    _add_file_arguments(verb, "the smaller network, .safetensors")
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
    print(report)
    return 0


def _add_quantize(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "quantize",
        help="make an EDSR compute as if in integers",
        description="Quantise an EDSR, with ranges from some images. Train it further with "
        "options/efficient/edsr_x4_quantized.yml; lsfd export makes integers of it.",
    )
    _add_file_arguments(verb, "the quantised network, .safetensors")
    verb.add_argument(
        "-i", "--images", type=Path, required=True, metavar="DIR", help="such as will be enlarged"
    )
    verb.add_argument("--bits", type=int, default=8, metavar="N", help="default: 8")
    verb.set_defaults(run=_quantize)


def _quantize(arguments: argparse.Namespace) -> int:
    from lsfd.networks.post_training import quantize_file

    print(quantize_file(arguments.weights, arguments.images, arguments.bits, arguments.output))
    return 0


def _add_export(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "export",
        help="write a network as ONNX; a quantised one with integer kernels",
        description="Needs the extra onnx: pip install lsfd[onnx].",
    )
    _add_file_arguments(verb, "the ONNX file, .onnx")
    verb.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from lsfd.inference.onnx import export_onnx
    from lsfd.networks.student_file import load_any

    export_onnx(load_any(arguments.weights)[0], arguments.output)
    print(f"{arguments.output}: for images of any size")
    return 0


def _show(text: str, result: object, file: Path | None) -> int:
    """Print a table and write its numbers if a file is named."""
    print(text)
    if file is not None:
        from lsfd.atomic import write_text

        write_text(file, json.dumps(result, indent=2) + "\n")
    return 0
