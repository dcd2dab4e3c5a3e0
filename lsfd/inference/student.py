"""A trained student as a function, for programs that use one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsfd.errors import LsfdError
from lsfd.imaging.raster import Raster
from lsfd.inference.engines import AnyUpscaler, open_upscaler
from lsfd.inference.memory import noticing_scarcity
from lsfd.networks.card import StudentCard

Image = TypeVar("Image", NDArray[Any], PIL.Image.Image, Tensor)

_AS_IT_IS = ("L", "LA", "RGB", "RGBA", "I;16")
"""Modes of PIL that are enlarged as they are; others are converted first."""


def load_student(
    weights: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    self_ensemble: bool = False,
    mix: Mapping[str, float] | None = None,
    engine: str = "auto",
) -> Student:
    """Return a trained network as a function from an image to a larger image.

    Args:
        weights: the name of a ready student (``"edsr-s-x4"``), a ``.safetensors`` file, an
            exported ``.onnx`` or OpenVINO ``.xml`` file, or another project's checkpoint.
        device: ``auto`` (the GPU where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        precision: ``auto`` (bf16 or fp16 where the device computes in it), ``fp32``, ``bf16``,
            ``fp16``.
        tile: side of a tile in input pixels; None: as large as fits into the memory.
        self_ensemble: whether to take the mean over the image mirrored and turned in eight ways.
        mix: share of each objective, for a student that SGN trained.
        engine: what computes: ``openvino`` (on the CPU), ``torch``, or ``auto``: OpenVINO on a
            CPU where it is installed and can compute the network, otherwise PyTorch.

    Raises:
        LsfdError: no such file or name, it cannot be read, or an argument is wrong.
    """
    upscaler, card = open_upscaler(
        weights,
        device=device,
        precision=precision,
        tile=tile,
        ensemble=self_ensemble,
        mix=mix,
        engine=engine,
    )
    return Student(upscaler, card)


class Student:
    """A network that enlarges images; made by :func:`load_student`.

    May be called from several threads: the calls take turns, and each uses all cores or the GPU.

    Attributes:
        scale: how many times longer the sides of a result are.
        card: what the file says about itself: architecture, teacher, method, scores.
    """

    def __init__(self, upscaler: AnyUpscaler, card: StudentCard) -> None:
        self.scale = upscaler.scale
        self.card = card
        self._upscaler = upscaler
        self._turn = Lock()

    def __repr__(self) -> str:
        kind = self.card.architecture.get("type", "network")
        return f"<lsfd student: {kind} x{self.scale} on {self._upscaler.device}>"

    def __call__(self, image: Image) -> Image:
        """Return an image enlarged; of the same kind as what is given.

        Args:
            image: one of

                * NumPy, uint8 or uint16: H x W, H x W x C, or N x H x W x C; C is 1 (grey), 2
                  (grey, alpha), 3 (RGB) or 4 (RGB, alpha). Cut into tiles where memory is short.
                * NumPy, floating point: the same shapes, values in 0..1; run whole.
                * PIL: L, LA, RGB, RGBA and I;16 stay in their mode; palettes become RGB or RGBA,
                  1-bit images L, everything else RGB.
                * torch, floating point: C x h x w or N x C x h x w, values in 0..1; run whole,
                  and given back on the device and in the dtype it came with, without gradients.

        Returns:
            sides ``scale`` times as long; values are clipped, integers rounded half up.

        Raises:
            LsfdError: no such image, or memory does not suffice.
        """
        if isinstance(image, Tensor):
            return self._tensor(image)
        if isinstance(image, PIL.Image.Image):
            return self._pil(image)
        if isinstance(image, np.ndarray):
            return self._array(image)
        raise LsfdError(
            "an image is a NumPy array, a PIL image or a torch tensor, not "
            f"{type(image).__name__}; read files with PIL.Image.open"
        )

    def batch(self, images: Sequence[Image]) -> list[Image]:
        """Return images of any sizes enlarged, in order."""
        return [self(image) for image in images]

    def _array(self, image: NDArray[Any]) -> NDArray[Any]:
        bands = image.shape[-1] if image.ndim in (3, 4) else int(image.ndim == 2)
        _check_shape(image.shape, bands)
        if image.ndim == 2:
            return self._array(image[..., None])[..., 0]
        if image.ndim == 4:
            return np.stack([self._array(each) for each in image])
        if image.dtype.kind == "f":
            planes = torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)
            return self._tensor(planes).permute(1, 2, 0).numpy().astype(image.dtype)
        if image.dtype not in (np.uint8, np.uint16):
            raise LsfdError(
                f"an array holds uint8, uint16 or floating point in 0..1, not {image.dtype}"
            )
        height, width, _ = image.shape
        result = np.empty((height * self.scale, width * self.scale, bands), image.dtype)
        with self._turn:
            self._upscaler.enlarge(Raster.from_array(image), Raster.from_array(result))
        return result

    def _pil(self, image: PIL.Image.Image) -> PIL.Image.Image:
        if image.mode not in _AS_IT_IS:
            image = image.convert(_nearest_mode(image))
        result = PIL.Image.fromarray(self._array(np.asarray(image)))
        profile = image.info.get("icc_profile")
        if profile:
            result.info["icc_profile"] = profile
        return result

    def _tensor(self, image: Tensor) -> Tensor:
        _check_shape(image.shape, image.shape[-3] if image.ndim in (3, 4) else 0)
        if not image.is_floating_point():
            raise LsfdError(f"a tensor holds floating point in 0..1, not {image.dtype}")
        if image.ndim == 3:
            return self._tensor(image[None])[0]
        scarce: list[str] = []
        with self._turn, torch.no_grad(), noticing_scarcity(scarce):
            larger = self._upscaler.planes(image.to(self._upscaler.device, torch.float32))
        if scarce:
            raise LsfdError(
                f"there is not enough memory for an image of {image.shape[-1]} x "
                f"{image.shape[-2]} in one piece ({scarce[0]}); give it as uint8 or uint16 "
                "(NumPy, PIL), which is cut into tiles"
            )
        return larger.float().clamp(0, 1).to(image.device, image.dtype)


def _nearest_mode(image: PIL.Image.Image) -> str:
    """Return the mode among those that are enlarged which loses least."""
    if image.mode == "1":
        return "L"
    return "RGBA" if image.has_transparency_data else "RGB"


def _check_shape(shape: Sequence[int], bands: int) -> None:
    if bands not in (1, 2, 3, 4) or 0 in shape:
        raise LsfdError(
            f"{tuple(shape)} is no shape of an image: arrays are H x W, H x W x C or "
            "N x H x W x C, tensors C x H x W or N x C x H x W, with 1 to 4 channels"
        )
