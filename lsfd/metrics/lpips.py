"""LPIPS, the learned perceptual distance (Zhang et al., CVPR 2018)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import lsfd.compat  # noqa: F401

import lpips
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from lsfd.errors import LsfdError
from lsfd.torch_files import read_torch_file

Backbone = Literal["alex", "vgg", "squeeze"]

_IMAGENET_WEIGHTS = {
    "alex": torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}


class Lpips:
    """The distance of two images as a person would see it; 0 for equal images.

    The ``lpips`` package brings the calibration, but not the backbone's ImageNet weights. They
    are read from PyTorch's folder of downloads and never downloaded here.

    Args:
        backbone: ``alex`` (what papers report), ``vgg`` or ``squeeze``.
        device: where to compute.

    Raises:
        LsfdError: the weights of the backbone are not there, or are not they.
    """

    def __init__(self, backbone: Backbone = "alex", device: str | torch.device = "cpu") -> None:
        path = _weights(backbone)
        if not path.is_file():
            raise LsfdError(
                f"LPIPS needs torchvision's weights of its backbone '{backbone}': "
                f"download {_IMAGENET_WEIGHTS[backbone].url} and put it at {path}"
            )
        with warnings.catch_warnings():
            # lpips 0.1.4 uses torchvision's old ``pretrained`` argument.
            warnings.simplefilter("ignore", UserWarning)
            self._network = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
        saved = read_torch_file(path)
        # lpips cuts the backbone into slices but keeps the numbers of its layers:
        # ``slice2.3.weight`` is torchvision's ``features.3.weight``.
        trunk = self._network.net
        try:
            if not isinstance(saved, dict):
                raise TypeError(f"it holds {type(saved).__name__}")
            names = {name: f"features.{name.split('.', 1)[1]}" for name in trunk.state_dict()}
            trunk.load_state_dict({name: saved[theirs] for name, theirs in names.items()})
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LsfdError(
                f"{path}: does not hold torchvision's weights of '{backbone}' ({reason}); download "
                f"{_IMAGENET_WEIGHTS[backbone].url}"
            ) from error
        self._device = torch.device(device)
        self._network.to(self._device)

    @classmethod
    def if_there(cls, device: str | torch.device = "cpu") -> Lpips | None:
        """Return what papers report, with AlexNet, or None without the weights of its backbone."""
        return cls(device=device) if _weights("alex").is_file() else None

    @torch.no_grad()
    def __call__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
        """Return the distance of two images, uint8, H x W x 3, RGB, of one shape.

        Raises:
            LsfdError: the shapes differ.
        """
        if first.shape != second.shape:
            raise LsfdError(
                f"only images of one shape can be compared, not {first.shape} and {second.shape}"
            )
        return float(self._network(self._tensor(first), self._tensor(second)))

    def _tensor(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the image as 1 x 3 x H x W in -1..1, the range lpips expects."""
        tensor = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
        return tensor.permute(2, 0, 1)[None].float() / 127.5 - 1


def _weights(backbone: Backbone) -> Path:
    """Return where the weights of a backbone lie, if they are there."""
    url = _IMAGENET_WEIGHTS[backbone].url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
