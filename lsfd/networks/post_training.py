"""Post-training quantisation: an EDSR becomes a quantised one, its ranges found on some images.

It is where quantisation-aware training begins, or, with many bits, all that is needed. Of ranges
from the largest value that a tensor takes down to a 13th of it, the one is chosen with which
quantising has the least squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.imaging.files import find_images, read_image
from lsfd.networks.quantization import LearnedRange
from lsfd.networks.quantized_edsr import QuantizedEDSR
from lsfd.networks.ready import find_weights
from lsfd.networks.student_file import load_any, save_student

_SMALLEST = 1e-12  # A tensor of zeros has a range all the same.
_SHRINK = 2**-0.25
_CANDIDATES = 16
"""Ranges that are tried: the largest value, and up to 15 times a quarter of an octave less."""

_SAMPLES = 1 << 16
"""At most so many values of a tensor and image are looked at for the error."""

_IMAGES = 16
_SIDE = 96


def quantize(
    network: EDSR, architecture: dict[str, Any], bits: int, images: Sequence[Tensor]
) -> tuple[QuantizedEDSR, dict[str, Any]]:
    """Quantise an EDSR.

    Args:
        network: BasicSR's EDSR.
        architecture: its options of BasicSR's shape.
        bits: b.
        images: what it takes, N x 3 x h x w each in 0..1, for the ranges of the activations.

    Returns:
        The quantised network, with weights of its own, and its options.

    Raises:
        LsfdError: as many bits cannot be had.
    """
    options = {**architecture, "type": "QuantizedEDSR", "bits": bits}
    quantized = QuantizedEDSR(**{key: value for key, value in options.items() if key != "type"})
    quantized.load_state_dict(network.state_dict(), strict=False)  # Ranges are not in there.
    calibrate(quantized, images)
    return quantized.train(network.training), options


def quantize_file(weights: Path, images: Path, bits: int, output: Path) -> str:
    """Quantise the EDSR in a file and write it.

    Args:
        weights: a file that :func:`lsfd.networks.student_file.load_any` reads, or the name of a
            ready student.
        images: folder of some such images as will be enlarged.
        bits: b.
        output: the quantised network's file.

    Returns:
        What was done, in a sentence.

    Raises:
        LsfdError: the file holds no EDSR, there are no images, or a file cannot be read or written.
    """
    weights = find_weights(weights)
    network, card = load_any(weights)
    if type(network) is not EDSR:
        name = type(network).__name__
        raise LsfdError(
            f"{weights}: only EDSR can be quantised, and this is {name}; lsfd export --int8 makes "
            "integers of any network"
        )
    crops = calibration_crops(images)
    quantized, options = quantize(network, card.architecture, bits, crops)
    note = f"{weights.name} quantised to {bits} bits, not fine-tuned"
    update = {"architecture": options, "note": note, "scores": {}}
    save_student(output, quantized, card.model_copy(update=update))
    return f"{output}: {bits} bits, ranges from {len(crops)} images; fine-tune it"


def calibration_crops(folder: Path) -> list[Tensor]:
    """Return the centres of some images, evenly chosen among a folder's: 1 x 3 x h x w in 0..1.

    Raises:
        LsfdError: there are none, or one cannot be read.
    """
    files = find_images(folder)
    if not files:
        raise LsfdError(f"{folder}: there is no image in it; name a folder that has some")
    crops = []
    for path in files[:: -(-len(files) // _IMAGES)]:
        image = read_image(path)
        top, left = (max(side - _SIDE, 0) // 2 for side in image.shape[:2])
        crop = image[top : top + _SIDE, left : left + _SIDE]
        crops.append(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255)
    return crops


@torch.no_grad()
def calibrate(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Set every range so that, on some images, the squared error of quantising is least.

    Activations are those of the network with quantised weights alone.

    Args:
        network: has :class:`LearnedRange` modules.
        images: what the network takes, N x 3 x h x w each; looked through twice.
    """
    images = list(images)
    ranges = [module for module in network.modules() if isinstance(module, LearnedRange)]
    largest = {id(module): torch.tensor(_SMALLEST) for module in ranges}
    errors = {id(module): torch.zeros(_CANDIDATES) for module in ranges}
    shrink = _SHRINK ** torch.arange(_CANDIDATES)

    def find_largest(module: LearnedRange, x: Tensor) -> None:
        largest[id(module)] = torch.maximum(largest[id(module)], x.abs().max().cpu())

    def add_errors(module: LearnedRange, x: Tensor) -> None:
        x = x.flatten()[:: -(-x.numel() // _SAMPLES)]
        for index, candidate in enumerate(largest[id(module)] * shrink):
            module.log_range.fill_(float(candidate.log2()))
            errors[id(module)][index] += (module.forward(x) - x).square().sum().cpu()

    _observe(network, ranges, images, find_largest)
    _observe(network, ranges, images, add_errors)
    for module in ranges:
        best = int(errors[id(module)].argmin())
        module.log_range.fill_(float((largest[id(module)] * shrink[best]).log2()))


def _observe(
    network: nn.Module,
    ranges: Iterable[LearnedRange],
    images: Iterable[Tensor],
    look: Callable[[LearnedRange, Tensor], None],
) -> None:
    """Run a network on images; every range is shown what reaches it, and lets it through as is."""

    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, LearnedRange)
        x = arguments[0].float()
        look(module, x)
        return x.clone()  # EDSR adds its long skip in place.

    handles = [module.register_forward_hook(hook) for module in ranges]
    try:
        for image in images:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
