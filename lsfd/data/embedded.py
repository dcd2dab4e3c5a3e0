"""Photographs for a first run without any download: those that scikit-image's wheel contains.

They are read from the installed package and never shipped with this project. What scikit-image
says of them (the docstrings of ``skimage.data``):

* astronaut (NASA, Great Images), rocket (SpaceX): public domain.
* chelsea (Stefan van der Walt), coffee (Rachel Michetti), camera (Lav Varshney), brick and gravel
  (CC0Textures), grass (linolafett): CC0.
* coins (Brooklyn Museum), ihc (CMMI): no known copyright restrictions.
* motorcycle_left and _right: Middlebury 2014 stereo benchmark (Scharstein et al., GCPR 2014).
* moon: nothing is said.

Left out are the drawings, what is smaller than 256 pixels on a side, the photographs out of focus
or blurred on purpose (cell, clock), and retina and hubble_deep_field: two large pictures of mostly
nothing, which would be half of all training pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import skimage.data

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image

EMBEDDED_TRAIN = (
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
"""Files of ``skimage/data`` to train on; some are grey."""

EMBEDDED_VAL = ("astronaut.png", "chelsea.png", "coffee.png")
"""Files of ``skimage/data`` to validate on: colour photographs, free to be shown anywhere."""


def write_embedded(out: Path) -> None:
    """Write the photographs as ``OUT/train/HR/*.png`` and ``OUT/val/HR/*.png``, 8-bit RGB.

    Raises:
        LsfdError: the installed scikit-image lacks one of them, or ``out`` cannot be written.
    """
    for split, names in (("train", EMBEDDED_TRAIN), ("val", EMBEDDED_VAL)):
        for path in embedded_files(names):
            write_image(out / split / "HR" / f"{path.stem}.png", read_image(path))


def embedded_files(names: Iterable[str] = EMBEDDED_TRAIN + EMBEDDED_VAL) -> list[Path]:
    """Return where some of the photographs lie in the installed scikit-image.

    Raises:
        LsfdError: it lacks one of them.
    """
    data = Path(skimage.data.__file__).parent
    files = [data / name for name in names]
    for path in files:
        if not path.is_file():
            raise LsfdError(
                f"scikit-image {version('scikit-image')} has no {path.name} in {data}; install "
                "scikit-image 0.22 or newer from its wheel"
            )
    return files
