"""How folders are usually upscaled, each way a program: upscale_peers.py NAME WEIGHTS IN OUT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def main(name: str, weights: Path, source: Path, out: Path) -> None:
    """Read, enlarge and write one image after the other, as the scripts of BasicSR do."""
    enlarge = {"basicsr": basicsr, "onnxruntime": onnxruntime, "realesrgan": realesrgan}[name](
        weights
    )
    out.mkdir(exist_ok=True)
    for path in sorted(source.glob("*")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        cv2.imwrite(str(out / path.name), enlarge(image))


def basicsr(weights: Path) -> Callable[[Any], Any]:
    """Return what enlarges BGR images with PyTorch in fp32."""
    import torch

    network = _edsr(weights)

    def enlarge(image: Any) -> Any:
        pixels = image.astype(np.float32) / 255.0
        planes = torch.from_numpy(np.transpose(pixels[:, :, [2, 1, 0]], (2, 0, 1))).float()
        with torch.no_grad():
            output = network(planes.unsqueeze(0))
        return _to_image(output.data.squeeze().float().cpu().clamp_(0, 1).numpy())

    return enlarge


def onnxruntime(weights: Path) -> Callable[[Any], Any]:
    """Return what enlarges BGR images with ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])

    def enlarge(image: Any) -> Any:
        pixels = image.astype(np.float32) / 255.0
        planes = np.ascontiguousarray(np.transpose(pixels[:, :, [2, 1, 0]], (2, 0, 1)))[None]
        return _to_image(np.clip(session.run(None, {"lq": planes})[0][0], 0, 1))

    return enlarge


def realesrgan(weights: Path) -> Callable[[Any], Any]:
    """Return what enlarges BGR images with Real-ESRGAN's helper, in tiles."""
    import tempfile

    import torch

    network = _edsr(weights)
    from realesrgan.utils import RealESRGANer

    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({"params": network.state_dict()}, file.name)
        helper = RealESRGANer(
            scale=4, model_path=file.name, model=network, tile=200, tile_pad=10, pre_pad=0
        )
    return lambda image: helper.enhance(image, outscale=4)[0]


def _edsr(weights: Path) -> Any:
    """Return the network of a file, built by BasicSR."""
    import lsfd.compat  # noqa: F401

    from basicsr.archs.edsr_arch import EDSR
    from safetensors.torch import load_file

    network = EDSR(3, 3, num_feat=32, num_block=8, upscale=4)
    network.load_state_dict(load_file(weights), strict=True)
    return network.eval()


def _to_image(planes: Any) -> Any:
    """Return 3 x H x W in 0..1, RGB, as a BGR image."""
    return (np.transpose(planes[[2, 1, 0]], (1, 2, 0)) * 255.0).round().astype(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
