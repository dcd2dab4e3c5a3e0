"""``prepare``: low/high-resolution pairs and public sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsfd.errors import LsfdError
from lsfd.terminal import say
from lsfd.verbs.arguments import SCALES, Verbs


def add_prepare(verbs: Verbs) -> None:
    """Add ``lsfd prepare``."""
    verb = verbs.add_parser(
        "prepare",
        help="make low/high-resolution pairs from a folder of images, or get a public set",
        description="Make OUT/HR and OUT/LR_bicubic/X4 (MATLAB-exact bicubic) from any folder of "
        "images; or download a public set; or check what training packed.",
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
    source.add_argument(
        "--check",
        nargs="+",
        type=Path,
        metavar="STORE",
        help="packed images, folders in a datasets.train.cache_dir: read all and compare with the "
        "fingerprint",
    )
    verb.add_argument("-o", "--output", type=Path, metavar="OUT", help="needed but for --check")
    verb.add_argument("--scale", type=int, nargs="+", choices=SCALES, help="default: 4")
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
    of_pairs = arguments.scale is not None or arguments.workers is not None
    if of_pairs and arguments.input is None:
        raise LsfdError("--scale and --workers go with -i, the images that pairs are made of")
    if arguments.check:
        return _check(arguments.check)
    if arguments.output is None:
        raise LsfdError("-o is missing: name the folder that the images go to")
    if arguments.embedded:
        from lsfd.data.embedded import write_embedded

        write_embedded(arguments.output)
        return 0
    if arguments.download:
        from lsfd.data.download import fetch_set

        for name in arguments.download:
            say(fetch_set(name, arguments.output))
        return 0
    from lsfd.data.prepare import prepare_pairs
    from lsfd.imaging.degradation import Degradation

    report = prepare_pairs(
        arguments.input,
        arguments.output,
        arguments.scale or [4],
        workers=arguments.workers,
        degradation=Degradation(**strengths) if degrades else None,
    )
    say(report)
    return 0


def _check(stores: list[Path]) -> int:
    from lsfd.data.pack import verify_store

    for folder in stores:
        store = verify_store(folder)
        say(f"{folder}: {len(store)} images as they were packed, fingerprint {store.fingerprint}")
    return 0
