"""Putting the page, a student and its runtime into one folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lsfd.atomic import write_bytes, write_text
from lsfd.data.embedded import embedded_files
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.resize import downscale, modcrop
from lsfd.inference.export import export
from lsfd.inference.footprint import bytes_per_pixel
from lsfd.inference.memory import CPU_LIMIT
from lsfd.inference.networks import open_network
from lsfd.inference.runtimes import ONNX_SUFFIX
from lsfd.inference.tiled import ENDLESS_OVERLAP
from lsfd.metrics.cost import count_parameters
from lsfd.networks.card import StudentCard
from lsfd.networks.reach import reach
from lsfd.networks.ready import find_weights
from lsfd.networks.trial import size_multiple
from lsfd.web.runtime import RUNTIME_FILES, runtime_folder, runtime_version

PAGE = Path(__file__).resolve().parent / "page"

INDEX = "index.html"
"""Written last: where it is, all the rest is."""

STUDENT = "student.onnx"

EXAMPLE = "astronaut.png"
EXAMPLE_CREDIT = "NASA, public domain, from scikit-image"


def build_page(weights: str | Path, out: Path, cache: Path | None = None) -> str:
    """Write a folder in which a student runs in the browser.

    Files of an earlier page are replaced, other files are left alone.

    Args:
        weights: a student's name or file, see :func:`~lsfd.inference.networks.open_network`; an
            ONNX file is taken as it is.
        out: the folder; made where there is none.
        cache: where the runtime is kept, see :func:`~lsfd.web.runtime.runtime_folder`.

    Returns:
        One sentence on what was written.

    Raises:
        LsfdError: the network cannot be read or exported, there is no runtime, or the folder
            cannot be written.
    """
    network, card = open_network(weights)
    runtime = runtime_folder(cache)
    file = find_weights(weights)
    if file.suffix == ONNX_SUFFIX:
        write_bytes(out / STUDENT, file.read_bytes())
    else:
        export(file, out / STUDENT)
    files = {each.name: each for each in sorted(PAGE.iterdir())}
    files |= {f"runtime/{name}": runtime / name for name in RUNTIME_FILES}
    index = files.pop(INDEX)
    for name, source in files.items():
        write_bytes(out / name, source.read_bytes())
    model = describe(file.stem, network, card, write_example(out, card.scale))
    write_text(out / "model.json", json.dumps(model, indent=2, sort_keys=True) + "\n")
    write_bytes(out / INDEX, index.read_bytes())
    return f"{out}: a page that enlarges x{card.scale}, for any web server"


def describe(
    name: str, network: nn.Module, card: StudentCard, example: dict[str, Any]
) -> dict[str, Any]:
    """Return what the page knows of a student; equal students give equal values.

    ``overlap`` is a multiple of ``multiple``, in input pixels; ``tile_pixels`` is how many of them
    a tile may have with its surroundings; ``reach`` is None for a network that sees everything.
    """
    multiple, distance = size_multiple(network), reach(network)
    overlap = ENDLESS_OVERLAP if distance is None else distance
    return {
        "name": name,
        "scale": card.scale,
        "reach": distance,
        "overlap": -(-overlap // multiple) * multiple,
        "multiple": multiple,
        "tile_pixels": CPU_LIMIT // max(bytes_per_pixel(network), 1),
        "runtime": runtime_version(),
        "example": example,
        "card": {
            "parameters": count_parameters(network),
            **card.model_dump(mode="json", include={"method", "teacher", "data"}),
            "scores": _finite(card.scores),
        },
    }


def _finite(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the scores that JSON has numbers for."""
    return {
        name: {metric: value for metric, value in values.items() if math.isfinite(value)}
        for name, values in scores.items()
    }


def write_example(out: Path, scale: int) -> dict[str, Any]:
    """Write a photograph that is free to be shown anywhere, shrunk by the scale; describe it."""
    photograph = read_image(embedded_files((EXAMPLE,))[0])
    image = downscale(modcrop(photograph, scale), scale)
    write_image(out / EXAMPLE, image)
    height, width, _ = image.shape
    return {
        "file": EXAMPLE,
        "name": Path(EXAMPLE).stem,
        "credit": EXAMPLE_CREDIT,
        "width": width,
        "height": height,
    }
