"""A decoded image file: its pixels, and what the file says beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyvips

from lsfd.errors import LsfdError
from lsfd.imaging.claims import HEADER_BYTES, claims_too_much
from lsfd.imaging.files import IMAGE_EXTENSIONS
from lsfd.imaging.pnm import full_range
from lsfd.imaging.raster import Raster

PICTURE_EXTENSIONS = (*IMAGE_EXTENSIONS, ".gif", ".jfif", ".jpe")
"""File name endings, in lower case, of what :func:`read_picture` can read."""

_LOADERS = ("gifload", "jpegload", "pngload", "tiffload", "webpload")
_LEFT_TO_OPENCV = (b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")  # BMP and PPM: not in libvips.
PROFILE = "icc-profile-data"
_BANDS_OF_PROFILE = {b"GRAY": (1, 2), b"RGB ": (3, 4)}

# Operations are never repeated here, and what is cached keeps files open.
pyvips.cache_set_max(0)
# Loaders that libvips itself does not trust with strangers' files are never tried.
pyvips.block_untrusted_set(True)


@dataclass
class Picture:
    """An upright image: grey, grey and alpha, RGB, or RGB and alpha.

    Attributes:
        raster: the pixels, 1 to 4 bands of 8 or 16 bits; alpha is not multiplied in.
        metadata: fields of libvips with their types: colour profile, EXIF, XMP, IPTC.
        resolution: pixels per millimetre, horizontally and vertically.
    """

    raster: Raster
    metadata: dict[str, tuple[int, Any]] = field(default_factory=dict)
    resolution: tuple[float, float] = (1.0, 1.0)


def read_picture(path: Path, folder: Path | None = None) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, GIF, BMP or PPM file; its contents count, not its name.

    An orientation in the EXIF data is applied. RGB and grey keep their colour profile and their
    values; CMYK becomes sRGB by its profile. BMP and PPM are held in memory as a whole.

    Args:
        path: the file.
        folder: for a temporary file, see :class:`~lsfd.imaging.raster.Raster`.

    Raises:
        LsfdError: the file is missing, damaged, cut off, animated, or no such image.
    """
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
        if claims_too_much(start, path.stat().st_size):
            raise LsfdError(
                f"{path} is not an image that can be read: its header claims more pixels than the "
                "file can hold"
            )
        if start[:2] in _LEFT_TO_OPENCV:
            return Picture(_read_by_opencv(path))
    except OSError as error:
        raise LsfdError(f"cannot read the image {path}: {error.strerror}") from error
    try:
        return _read_by_vips(path, folder)
    except pyvips.Error as error:
        raise LsfdError(
            f"{path} is not an image that can be read: damaged, or of another format "
            f"({_reason(error)})"
        ) from error


def _reason(error: pyvips.Error) -> str:
    """Return what libvips says, in one line."""
    return " ".join(error.detail.split()) or error.message


def _read_by_opencv(path: Path) -> Raster:
    data = path.read_bytes()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise LsfdError(f"{path} is not an image that can be read: damaged, or of another format")
    pixels = full_range(pixels, data)
    if pixels.ndim == 2:
        return Raster.from_array(pixels[:, :, None])
    # The fourth byte of most BMP files means nothing; where it is alpha, something can be seen.
    opaque = pixels.shape[2] == 3 or not pixels[:, :, 3].any()
    order = [2, 1, 0] if opaque else [2, 1, 0, 3]
    return Raster.from_array(np.ascontiguousarray(pixels[:, :, order]))


def _read_by_vips(path: Path, folder: Path | None) -> Picture:
    image = _open(path, "sequential")
    loader = image.get("vips-loader").removesuffix("_source")
    if loader not in _LOADERS:
        raise LsfdError(f"{path} is not an image that can be read: of another format")
    if "n-pages" in image.get_fields() and image.get("n-pages") > 1:
        raise LsfdError(
            f"{path} holds {image.get('n-pages')} pictures: an animation, or pages; only single "
            "pictures can be used, so take it apart"
        )
    if _has(image, "orientation") and image.get("orientation") > 1:
        image = _open(path, "random").autorot()
    try:
        image = _grey_or_rgb(image)
    except LsfdError as error:
        raise LsfdError(f"{path} {error}") from error
    return Picture(
        Raster.from_vips(image, folder), _metadata(image), (float(image.xres), float(image.yres))
    )


def _open(path: Path, access: str) -> pyvips.Image:
    source = pyvips.Source.new_from_file(str(path))
    return pyvips.Image.new_from_source(source, "", access=access, fail_on="error")


def _has(image: pyvips.Image, name: str) -> bool:
    return image.get_typeof(name) != 0


def _grey_or_rgb(image: pyvips.Image) -> pyvips.Image:
    if image.format not in ("uchar", "ushort"):
        raise LsfdError(f"holds {image.format} pixels; only 8- and 16-bit images can be used")
    if image.interpretation == "cmyk":
        depth = 8 if image.format == "uchar" else 16
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    if image.bands > 4:
        raise LsfdError(f"has {image.bands} channels; only grey, RGB and alpha can be used")
    return image


def _metadata(image: pyvips.Image) -> dict[str, tuple[int, Any]]:
    """Return what stays true of the enlarged image: no thumbnail, no profile of other colours."""
    found = {
        name: (image.get_typeof(name), image.get(name))
        for name in image.get_fields()
        if name.startswith(("exif-", "xmp-", "iptc-")) or name == PROFILE
    }
    if PROFILE in found:
        colours = bytes(found[PROFILE][1][16:20])
        if image.bands not in _BANDS_OF_PROFILE.get(colours, ()):
            del found[PROFILE]
    return found
