"""Writing pictures: PNG, JPEG, WebP and TIFF with all that belongs to them, BMP and PPM plainly."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips

from lsfd.atomic import writing
from lsfd.disk import error_told
from lsfd.errors import LsfdError, nearest
from lsfd.imaging.picture import PROFILE, Picture
from lsfd.imaging.raster import strips


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        name: for messages.
        saver: libvips' operation; None: written here.
        options: of the saver. Nothing is lost, except by JPEG.
        deep: 16 bits.
        alpha: transparency.
        profile: a colour profile.
        longest_side: in pixels; more does not go into the file's header.
    """

    name: str
    saver: str | None = None
    options: Mapping[str, Any] | None = None
    deep: bool = False
    alpha: bool = False
    profile: bool = True
    longest_side: int = 2**31 - 1


_QUICK = {"compression": 2, "filter": "up"}
"""For PNG: half the time of libvips' own choice, and photographs take a third less space."""

_PNG = Format("PNG", "pngsave", _QUICK, deep=True, alpha=True)
_JPEG = Format("JPEG", "jpegsave", {"Q": 95}, longest_side=65500)
_WEBP = Format("WebP", "webpsave", {"lossless": True}, alpha=True, longest_side=16383)
_TIFF = Format(
    "TIFF", "tiffsave", {"compression": "deflate", "predictor": "horizontal"},
    deep=True, alpha=True,
)  # fmt: skip
_BMP = Format("BMP", profile=False)
_PPM = Format("PPM", profile=False)

FORMATS = {
    ".bmp": _BMP, ".jpeg": _JPEG, ".jpg": _JPEG, ".png": _PNG, ".ppm": _PPM, ".tif": _TIFF,
    ".tiff": _TIFF, ".webp": _WEBP,
}  # fmt: skip
"""What each file name ending, in lower case, stands for."""


def format_of(path: Path) -> Format:
    """Return the format that a file's name asks for.

    Raises:
        LsfdError: none that can be written.
    """
    extension = path.suffix.lower()
    if extension not in FORMATS:
        hint = nearest(extension, FORMATS)
        raise LsfdError(f"{path}: '{extension}' is no image format that can be written{hint}")
    return FORMATS[extension]


def write_picture(path: Path, picture: Picture, size: tuple[int, int] | None = None) -> None:
    """Write an image file, atomically and row by row; the format follows from the extension.

    Where the format has no alpha, the picture is put on white; where it has no 16 bits, values
    are rounded; where it has no colour profile, colours become sRGB.

    Args:
        path: where to write, in a folder that is there; an existing file is replaced.
        picture: what to write.
        size: width and height to resize to before (cubic, antialiased); None: as it is.

    Raises:
        LsfdError: unknown extension, too large for the format, or the file cannot be written.
    """
    form = format_of(path)
    try:
        image = _fitted(_described(picture), form, size)
        longest = max(image.width, image.height)
        if longest > form.longest_side:
            raise LsfdError(
                f"{path} cannot be written: {form.name} holds at most {form.longest_side} pixels "
                f"a side, this picture has {longest}; use PNG or TIFF"
            )
        with writing(path, make_folder=False) as file:
            if form.saver is None:
                _write_plainly(file, image, form)
            else:
                _save(image, form, file.name)
    except pyvips.Error as error:
        reason = " ".join(error.detail.split()) or error.message
        raise LsfdError(f"{path} cannot be written: {reason}") from error


def _save(image: pyvips.Image, form: Format, name: str) -> None:
    """Let libvips write a file.

    Raises:
        OSError: the disk is full, or the like, of which libvips tells in words.
    """
    assert form.saver is not None
    options = dict(form.options or {})
    if form is _TIFF:  # 4 GB are all that an ordinary TIFF can address.
        options["bigtiff"] = image.width * image.height * image.bands > 1 << 30
    try:
        getattr(image, form.saver)(name, **options)
    except pyvips.Error as error:
        told = error_told(error.detail)
        if told is None:
            raise
        raise told from error


def _described(picture: Picture) -> pyvips.Image:
    """Return the picture's pixels with its metadata."""
    xres, yres = picture.resolution
    image = picture.raster.image().copy(xres=xres, yres=yres)
    for name, (kind, value) in picture.metadata.items():
        image.set_type(kind, name, value)
    # It has been turned; EXIF data that still ask for it would turn it again.
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return image


def _fitted(image: pyvips.Image, form: Format, size: tuple[int, int] | None) -> pyvips.Image:
    """Return the image resized, without what the format has no place for."""
    if size is not None and size != (image.width, image.height):
        image = _resized(image, size)
    if image.hasalpha() and not form.alpha:
        white = 255 if image.format == "uchar" else 65535
        image = image.flatten(background=[white] * (image.bands - 1))
    if image.format == "ushort" and not form.deep:
        rgb = "srgb" if image.bands > 2 else "b-w"
        image = (image / 257).rint().cast("uchar").copy(interpretation=rgb)
    if image.get_typeof(PROFILE) and not form.profile:
        grey = image.bands == 1
        image = image.icc_transform("srgb", embedded=True)
        image = image.colourspace("b-w") if grey else image
    return image


def _resized(image: pyvips.Image, size: tuple[int, int]) -> pyvips.Image:
    depth = image.format
    # Colours count as much as they are seen: else those of transparent pixels would show.
    weighed = image.premultiply() if image.hasalpha() else image
    width, height = size
    weighed = weighed.resize(width / image.width, vscale=height / image.height, kernel="cubic")
    if image.hasalpha():
        weighed = weighed.unpremultiply().rint()
    return weighed.cast(depth)


# BMP and PPM: libvips has no writer for the one, and needs another library for the other.


def _write_plainly(file: BinaryIO, image: pyvips.Image, form: Format) -> None:
    if form is _PPM:
        kind = b"P6" if image.bands == 3 else b"P5"
        file.write(b"%s\n%d %d\n255\n" % (kind, image.width, image.height))
        for _, rows in strips(image):
            file.write(rows.tobytes())
        return
    _write_bmp(file, image)


def _write_bmp(file: BinaryIO, image: pyvips.Image) -> None:
    """Write rows of BGR, or of grey as a palette, filled up to 4 bytes, the lowest first."""
    grey = image.bands == 1
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256)) if grey else b""
    row = -(-image.width * image.bands // 4) * 4
    start = 14 + 40 + len(palette)
    size = start + row * image.height
    if size >= 1 << 32:
        raise LsfdError("BMP files hold at most 4 GB; use PNG or TIFF")
    file.write(struct.pack("<2sIHHI", b"BM", size, 0, 0, start))
    depth, levels = 8 * image.bands, 256 if grey else 0
    per_metre = [min(round(1000 * each), 2**31 - 1) for each in (image.xres, image.yres)]
    numbers = (40, image.width, image.height, 1, depth, 0, 0, *per_metre, levels, 0)
    file.write(struct.pack("<IiiHHIIiiII", *numbers) + palette)
    for top, rows in strips(image):
        flat = rows[::-1, :, ::-1].reshape(len(rows), -1)
        file.seek(start + (image.height - top - len(rows)) * row)
        file.write(np.pad(flat, ((0, 0), (0, row - flat.shape[1]))).tobytes())
