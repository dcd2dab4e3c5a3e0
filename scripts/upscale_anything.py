"""Put `lsfd upscale` to the test: a folder of 200 files of every kind, and one enormous image.

    python scripts/upscale_anything.py -w STUDENT.safetensors -i PHOTOS -o OUT

The folder holds photographs in every format, depth, colour and orientation that can be read,
under names with spaces and foreign letters, a panorama, one pixel, and what cannot be upscaled: a
text and half a JPEG under an image's name, an animation. One command has to upscale whatever can
be, each to what the network makes of the same pixels in one piece, name the rest, and keep to its
memory, which is then measured for an output of 20,000 x 20,000 pixels, too.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from lsfd.cli import exit_status
from lsfd.imaging.files import find_images, read_image
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.student_file import load_any

Pixels = NDArray[np.uint8]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Kind:
    """A kind of image file.

    Attributes:
        name: put into the files' names.
        ending: of them.
        save: writes one.
        bands: of the output: 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        deep: whether the output has 16 bits.
        tolerance: how far, in grey levels and on average, the result may be from what another
            reader and the network in one piece make of it.
    """

    name: str
    ending: str
    save: Callable[[Path, Pixels], None]
    bands: int = 3
    deep: bool = False
    tolerance: float = 0.2


def pillow(mode: str = "RGB", **options: Any) -> Callable[[Path, Pixels], None]:
    """Return what writes an image in a mode of Pillow."""

    def save(path: Path, image: Pixels) -> None:
        picture = Image.fromarray(image)
        if "A" in mode:
            picture.putalpha(Image.fromarray(visible(*image.shape[:2])))
        picture = picture.quantize(64) if mode == "P" else picture.convert(mode)
        picture.save(path, **options)

    return save


def visible(height: int, width: int) -> Pixels:
    """Return alpha: opaque to the left, more and more transparent to the right."""
    ramp = np.clip(np.linspace(400, -100, width), 0, 255)
    return np.tile(ramp.astype(np.uint8), (height, 1))


def deep(path: Path, image: Pixels) -> None:
    """Write 16 bits; the lower ones are not those above again."""
    levels = image.astype(np.uint16) * 257
    levels ^= np.indices(levels.shape).sum(0).astype(np.uint16) & 127
    cv2.imencode(path.suffix, levels[:, :, ::-1])[1].tofile(path)


def deep_grey(path: Path, image: Pixels) -> None:
    """Write one channel of 16 bits."""
    cv2.imencode(path.suffix, image[:, :, 1].astype(np.uint16) * 257)[1].tofile(path)


def turned(orientation: int) -> Callable[[Path, Pixels], None]:
    """Return what writes a JPEG that EXIF data say how to hold."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return pillow(exif=exif.tobytes(), quality=92)


KINDS = (
    Kind("plain", "png", pillow()),
    Kind("plain", "jpg", pillow(quality=92), tolerance=4),
    Kind("plain", "webp", pillow(quality=90), tolerance=4),
    Kind("plain", "tif", pillow(compression="tiff_lzw")),
    Kind("plain", "bmp", pillow()),
    Kind("still", "gif", pillow("P")),
    # Compared with what the network makes of the same image rounded to 8 bits.
    Kind("16 bit", "png", deep, deep=True, tolerance=0.5),
    Kind("16 bit", "tiff", deep, deep=True, tolerance=0.5),
    Kind("16 bit grey", "png", deep_grey, bands=1, deep=True, tolerance=1),
    Kind("grey", "jpeg", pillow("L", quality=92), bands=1, tolerance=4),
    Kind("grey", "png", pillow("L"), bands=1, tolerance=1),
    Kind("grey", "bmp", pillow("L"), bands=1, tolerance=1),
    Kind("black and white", "png", pillow("1"), bands=1, tolerance=2),
    Kind("palette", "png", pillow("P")),
    Kind("transparent", "png", pillow("RGBA"), bands=4, tolerance=1),
    Kind("transparent", "webp", pillow("RGBA", lossless=True), bands=4, tolerance=1),
    Kind("transparent grey", "png", pillow("LA"), bands=2, tolerance=1),
    *(Kind(f"turned {way}", "jpg", turned(way), tolerance=4) for way in range(2, 9)),
    Kind("profile", "jpg", pillow(icc_profile=SRGB, quality=92), tolerance=4),
    Kind("profile", "png", pillow(icc_profile=SRGB)),
    Kind("CMYK", "jpg", pillow("CMYK", quality=92), tolerance=40),
    Kind("CMYK", "tif", pillow("CMYK"), tolerance=40),
    Kind("a JPEG that says", "png", pillow(format="JPEG", quality=92), tolerance=4),
)
WORDS = ("größe", "写真 2", "a b", "[1]", "naïve%20", "снимок")
BAD = ("a text.png", "truncated.jpg", "animated.gif")


def make_folder(
    folder: Path, photographs: list[Pixels], count: int, panorama: int
) -> dict[Path, Kind]:
    """Write the folder; return its images of several pixels, and what kind each is of."""
    files: dict[Path, Kind] = {}
    plain = KINDS[0]
    kinds, photos = itertools.cycle(KINDS), itertools.cycle(photographs)
    for number in range(count - len(BAD) - 2):
        kind, word = next(kinds), WORDS[number % len(WORDS)]
        path = folder / WORDS[number // 30 % len(WORDS)] / f"{kind.name} {number} {word}"
        path = path.with_name(f"{path.name}.{kind.ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        kind.save(path, next(photos))
        files[path] = kind
    strip = next(photos)
    strip = np.tile(strip, (1, -(-panorama // strip.shape[1]), 1))[:, :panorama]
    files[folder / "panorama.png"] = plain
    plain.save(folder / "panorama.png", strip)
    plain.save(folder / "one pixel.png", strip[:1, :1])

    (folder / BAD[0]).write_text("This is no image.\n")
    plain.save(folder / "whole.jpg", next(photos))
    whole = folder / "whole.jpg"
    (folder / BAD[1]).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    frames = [Image.fromarray(photograph) for photograph in photographs[:3]]
    frames[0].save(folder / BAD[2], save_all=True, append_images=frames[1:])
    (folder / "notes.txt").write_text("Not an image by its name either.\n")
    return files


def compare(path: Path, target: Path, kind: Kind, upscaler: Upscaler) -> str | None:
    """Return what is wrong with the output of an image; None: nothing."""
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        shown = read_image(path) if kind.deep else np.asarray(upright.convert("RGB"))
    expected = upscaler(np.ascontiguousarray(shown)).astype(int)
    if kind.bands < 3:  # The mean of the three channels, clipped here before it is taken.
        expected = expected.mean(axis=2, keepdims=True).round().astype(int).repeat(3, 2)
    stored = cv2.imdecode(np.fromfile(target, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        return "OpenCV cannot read it"
    bands = 1 if stored.ndim == 2 else stored.shape[2]
    if bands != (4 if kind.bands == 2 else kind.bands):  # OpenCV has no grey with alpha.
        return f"{bands} channels instead of {kind.bands}"
    if (stored.dtype == np.uint16) != kind.deep:
        return f"pixels of {stored.dtype}"
    found = read_image(target)
    if found.shape != expected.shape:
        return f"shape {found.shape} instead of {expected.shape}"
    seen: NDArray[np.bool_] = np.ones(found.shape[:2], bool)
    if kind.bands in (2, 4):
        seen = stored[:, :, -1] > 250  # Elsewhere hidden colours had been replaced.
        seen[:, found.shape[1] // 2 :] = False
    difference = np.abs(found - expected)[seen]
    if difference.mean() > kind.tolerance:
        return f"{difference.mean():.2f} grey levels off, at most {difference.max()}"
    return None


_LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Linux hands a program the peak memory of what started it: so something small starts it."""


def run(*arguments: str | Path) -> tuple[int, str, float, int]:
    """Run ``lsfd upscale``; return exit status, what it printed, seconds, and peak memory."""
    python = sys.executable
    command = [python, "-c", _LAUNCHER, python, "-m", "lsfd", "upscale", *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    printed, _, peak = done.stdout.rstrip().rpartition("\n")
    unit = 1 if sys.platform == "darwin" else 1024
    return done.returncode, printed, time.perf_counter() - start, int(peak) * unit


def check_folder(source: Path, files: dict[Path, Kind], out: Path, weights: Path) -> list[str]:
    """Upscale the folder in one command; return all that is wrong."""
    status, printed, seconds, peak = run(
        "-i", source, "-o", out, "-w", weights, "--device", "cpu", "--precision", "fp32"
    )
    print(printed)
    print(f"{seconds:.0f} s, peak memory {peak / 2**20:.0f} MiB")
    network, card = load_any(weights)
    upscaler = Upscaler(network, card.scale, "cpu")
    wrong = [] if status == 1 else [f"exit status {status} instead of 1"]
    for name in BAD:
        if f"{source / name}: failed" not in printed:
            wrong.append(f"{name} is not named")
        if (out / name).exists():
            wrong.append(f"{name} has an output")
    if f"{source / 'notes.txt'}: skipped" not in printed:
        wrong.append("notes.txt is not named")
    if f"{len(files) + 1} upscaled" not in printed:
        wrong.append("not all that could be were upscaled")
    for path, kind in files.items():
        target = out / path.relative_to(source)
        target = target.with_suffix(".png") if kind.ending == "gif" else target
        problem = compare(path, target, kind, upscaler) if target.exists() else "no output"
        if problem:
            wrong.append(f"{path.relative_to(source)}: {problem}")
    if read_image(out / "one pixel.png").shape != (card.scale, card.scale, 3):
        wrong.append("one pixel has not become a square")
    return wrong


def check_memory(side: int, folder: Path, weights: Path, limit: int) -> list[str]:
    """Upscale an image to side x side pixels, and compare the memory with that of a tiny one."""
    scale = load_any(weights)[1].scale
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    small, large = folder / "small.png", folder / "large.png"
    Image.fromarray(noise[:16, :16]).save(small)
    times = -(-side // scale // 64)
    Image.fromarray(np.tile(noise, (times, times, 1))[: side // scale, : side // scale]).save(large)
    peaks = []
    for path in (small, large):
        out = folder / f"{path.stem}_x{scale}.png"
        status, _, seconds, peak = run("-i", path, "-o", out, "-w", weights, "--device", "cpu")
        if status:
            return [f"{path.name}: exit status {status}"]
        peaks.append(peak)
        print(f"{path.name}: {seconds:.0f} s, peak memory {peak / 2**20:.0f} MiB")
    above = peaks[1] - peaks[0]
    print(f"{side} x {side} pixels take {above / 2**20:.0f} MiB above idle")
    return [] if above <= limit else [f"{above / 2**20:.0f} MiB above idle"]


def main() -> int:
    """Make, upscale, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-w", "--weights", type=Path, required=True)
    parser.add_argument("-i", "--photographs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="files in the folder")
    parser.add_argument("--crop", type=int, default=160, help="sides of the photographs")
    parser.add_argument("--panorama", type=int, default=12_000, help="its width")
    parser.add_argument("--side", type=int, default=20_000, help="of the large output; 0: none")
    arguments = parser.parse_args()

    crop, source = arguments.crop, arguments.output / "in"
    found = find_images(arguments.photographs)[:40]
    photographs = [read_image(path)[:crop, : crop * 3 // 4] for path in found]
    arguments.output.mkdir(parents=True, exist_ok=True)
    wrong = []
    if arguments.side:
        limit = 3 << 29
        wrong = check_memory(arguments.side, arguments.output, arguments.weights, limit)
    files = make_folder(source, photographs, arguments.count, arguments.panorama)
    wrong += check_folder(source, files, arguments.output / "out", arguments.weights)
    print("\n".join(wrong) or "all as it should be")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(exit_status("upscale_anything", main))
