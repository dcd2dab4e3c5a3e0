"""Reading, writing and finding image files.

The only place where OpenCV's BGR order is met: every image that leaves or enters is RGB.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lsfd.atomic import write_bytes
from lsfd.errors import LsfdError, nearest
from lsfd.imaging.claims import JPEG_MARKER, claims_too_much
from lsfd.imaging.pnm import full_range

# OpenCV writes lines of its own about each damaged file; read_image says it in one sentence.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File name endings, in lower case, that are taken for images."""

_BEGINNINGS = (
    b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
)  # fmt: skip
"""Of files of these formats; OpenCV would read others, too, whatever the name says."""


_JPEG_END = 0xD9


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

    Grey becomes three equal channels, an alpha channel is dropped, 16 bits are rounded to 8. The
    pixels are taken as stored: an orientation in the EXIF data is not applied.

    Returns:
        uint8, H x W x 3, RGB.

    Raises:
        LsfdError: the file is missing, unreadable, or no 8- or 16-bit image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LsfdError(f"cannot read the image {path}: {error.strerror}") from error
    known = (
        data.startswith(_BEGINNINGS)
        and not _is_cut_jpeg(data)
        and not claims_too_much(data, len(data))
    )
    # Decoding from memory: cv2.imread cannot open every Unicode path on every system.
    try:
        pixels = np.frombuffer(data, np.uint8)
        image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED) if known else None
    except cv2.error:
        image = None
    if image is None:
        raise LsfdError(f"{path} is not an image that can be read: damaged, or of another format")
    image = full_range(image, data)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise LsfdError(
            f"{path} holds {image.dtype} pixels; only 8- and 16-bit images can be used, "
            "so convert it to PNG"
        )
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, 2::-1])


def _is_cut_jpeg(data: bytes) -> bool:
    """Return whether a JPEG's end is missing, in whose place OpenCV would put grey."""
    if not data.startswith(b"\xff\xd8"):
        return False
    place = 2
    while found := JPEG_MARKER.search(data, place):
        place = found.end()
        if data[place - 1] == _JPEG_END:  # Cameras put films and depth maps behind it.
            return False
        place += max(int.from_bytes(data[place : place + 2], "big"), 2)  # Past a thumbnail, say.
    return True


def write_image(path: Path, image: NDArray[np.uint8], *, make_folder: bool = True) -> None:
    """Write an image file, atomically; the format follows from the extension.

    Args:
        path: where to write; an existing file is replaced.
        image: uint8, H x W x 3, RGB.
        make_folder: whether missing parent folders are made, see :func:`lsfd.atomic.writing`.

    Raises:
        LsfdError: unknown extension, wrong array, or the file cannot be written.
    """
    extension = path.suffix.lower()
    if extension not in IMAGE_EXTENSIONS:
        hint = nearest(extension, IMAGE_EXTENSIONS)
        raise LsfdError(f"cannot write {path}: '{extension}' is no known image format{hint}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise LsfdError(
            f"cannot write {path}: an image is uint8 H x W x 3, but this is {image.dtype} of "
            f"shape {image.shape}"
        )
    write_bytes(path, _encode(path, extension, image).tobytes(), make_folder=make_folder)


def find_images(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted by path.

    A file counts by its extension (``IMAGE_EXTENSIONS``, in any case); it is not opened. Hidden
    files and the contents of hidden folders are left out.

    Raises:
        LsfdError: the folder does not exist or is no folder.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise LsfdError(f"the image folder {folder} {problem}")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_EXTENSIONS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _encode(path: Path, extension: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bytes of the image file, without loss where the format allows it."""
    # A WebP quality above 100 means lossless; JPEG at 95 is OpenCV's own default.
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == ".webp" else []
    try:
        done, encoded = cv2.imencode(extension, np.ascontiguousarray(image[:, :, ::-1]), options)
    except cv2.error as error:
        raise LsfdError(f"cannot write {path}: {error.err}") from error
    if not done:
        raise LsfdError(f"cannot write {path}: OpenCV cannot encode '{extension}'")
    return np.asarray(encoded, np.uint8)
