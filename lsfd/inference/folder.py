"""Upscaling image files: one, or a whole folder tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lsfd.errors import LsfdError
from lsfd.imaging.files import IMAGE_EXTENSIONS, read_image, write_image


@dataclass
class FolderReport:
    """What became of the files.

    Attributes:
        done: images written.
        kept: outputs of an earlier run left as they were (only with ``resume``).
        failed: files that are no image or could not be read or written, each with the reason.
    """

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{len(self.done)} upscaled"]
        if self.kept:
            counts.append(f"{len(self.kept)} kept from an earlier run")
        if self.failed:
            counts.append(f"{len(self.failed)} skipped:")
        reasons = [f"  {path}: {reason}" for path, reason in self.failed.items()]
        return "\n".join([", ".join(counts), *reasons])


def upscale_path(
    source: Path,
    out: Path,
    upscaler: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    suffix: str = "",
    extension: str | None = "png",
    resume: bool = False,
) -> FolderReport:
    """Upscale an image, or all images of a folder tree.

    Every output is written atomically. A file that cannot be used is named in the report and
    does not stop the others. Hidden files are left alone.

    Args:
        source: an image file or a folder.
        out: for a folder, the folder that takes the same tree; for a file, a file name with an
            image extension (which then counts instead of ``suffix`` and ``extension``), or a
            folder.
        upscaler: turns a uint8 H x W x 3 RGB image into a larger one.
        suffix: put behind each file name, before the extension: ``_x4`` makes ``cat_x4.png``.
        extension: of the outputs, without dot; None: that of each input.
        resume: keep outputs that exist instead of writing them anew.

    Raises:
        LsfdError: the source does not exist or has no image, two inputs would be written to one
            file, or an output would replace an input.
    """
    report = FolderReport()
    outputs = _plan(source, out, suffix, extension, report)
    with tqdm(outputs.items(), "upscale", unit="image", disable=None) as bar:
        for image_path, out_path in bar:
            bar.set_postfix_str(image_path.name)
            if resume and out_path.exists():
                report.kept.append(out_path)
                continue
            try:
                write_image(out_path, upscaler(read_image(image_path)))
            except LsfdError as error:
                report.failed[image_path] = str(error)
            else:
                report.done.append(out_path)
    return report


def _plan(
    source: Path, out: Path, suffix: str, extension: str | None, report: FolderReport
) -> dict[Path, Path]:
    """Return the output of each input; files that are no image go into the report."""
    outputs: dict[Path, Path] = {}
    inputs: dict[Path, Path] = {}
    for path, relative in _files(source, out):
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            report.failed[path] = "not an image"
            continue
        if source.is_file() and not out.is_dir() and out.suffix.lower() in IMAGE_EXTENSIONS:
            target = out
        else:
            ending = path.suffix if extension is None else f".{extension.removeprefix('.')}"
            target = out / relative.parent / f"{path.stem}{suffix}{ending}"
        if target in inputs:
            raise LsfdError(
                f"{inputs[target]} and {path} would both be written to {target}; "
                "rename one of them, or keep the extensions"
            )
        inputs[target] = path
        outputs[path] = target
    if not outputs:
        raise LsfdError(f"there is no image in {source}")
    originals = {path.resolve() for path in outputs}
    for target in inputs:
        if target.resolve() in originals:
            raise LsfdError(f"the output {target} would replace an input; choose another folder")
    return outputs


def _files(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """Return the files of the source, with their paths relative to it, but none below ``out``."""
    if source.is_file():
        return [(source, Path(source.name))]
    if not source.is_dir():
        raise LsfdError(f"{source} does not exist; give an image file or a folder")
    own = out.resolve()
    if own == source.resolve():
        raise LsfdError(f"the outputs cannot go among the inputs in {source}; give another folder")
    return [
        (path, path.relative_to(source))
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and own not in path.resolve().parents
    ]
