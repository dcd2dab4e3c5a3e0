"""Upscaling image files: one, or a whole folder tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lsfd.errors import LsfdError, nearest
from lsfd.imaging.files import IMAGE_EXTENSIONS, read_image, write_image


@dataclass
class FolderReport:
    """What became of the files.

    Attributes:
        done: images written.
        kept: outputs of an earlier run left as they were (only with ``resume``).
        skipped: files whose names say that they are no images.
        failed: images that could not be read, upscaled or written, each with the reason.
    """

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{len(self.done)} upscaled"]
        if self.kept:
            counts.append(f"{len(self.kept)} kept from an earlier run")
        if self.skipped:
            counts.append(f"{len(self.skipped)} skipped")
        if self.failed:
            counts.append(f"{len(self.failed)} failed")
        lines = [f"  {path}: skipped, not an image" for path in self.skipped]
        lines += [f"  {path}: failed, {reason}" for path, reason in self.failed.items()]
        return "\n".join([", ".join(counts), *lines])


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
    does not stop the others; what is no image by its name (a text among the photographs) is no
    failure. Hidden files are left alone.

    Args:
        source: an image file or a folder.
        out: for a folder, the folder that takes the same tree; for a file, a file name with an
            image extension (which then counts instead of ``suffix`` and ``extension``), or a
            folder; one with a dot in its name has to exist.
        upscaler: turns a uint8 H x W x 3 RGB image into a larger one.
        suffix: put behind each file name, before the extension: ``_x4`` makes ``cat_x4.png``.
        extension: of the outputs, without dot; None: that of each input.
        resume: keep outputs that exist instead of writing them anew.

    Raises:
        LsfdError: the source does not exist or has no image, two inputs would be written to one
            file, or an output would replace an input.
    """
    files = _files(source, out)
    images = {path: name for path, name in files.items() if _is_image(path)}
    if not images:
        raise LsfdError(f"there is no image in {source}")
    outputs = _outputs(images, _target_names(source, out, suffix, extension))
    _make_folders({target.parent for target in outputs.values()})
    report = FolderReport(skipped=[path for path in files if path not in images])
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


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS


def _target_names(
    source: Path, out: Path, suffix: str, extension: str | None
) -> Callable[[Path], Path]:
    """Return what gives the output file for the path of an input relative to the source."""
    if source.is_file() and not out.is_dir() and out.suffix:
        if not _is_image(out):
            raise LsfdError(
                f"{out}: '{out.suffix}' is no image format that can be written"
                f"{nearest(out.suffix, IMAGE_EXTENSIONS)}; a folder of that name has to be made "
                "before"
            )
        return lambda relative: out
    ending = None if extension is None else f".{extension.removeprefix('.').lower()}"
    if ending is not None and ending not in IMAGE_EXTENSIONS:
        hint = nearest(ending, IMAGE_EXTENSIONS)
        raise LsfdError(f"'{extension}' is no image format that can be written{hint}")
    return lambda relative: (
        out / relative.parent / f"{relative.stem}{suffix}{ending or relative.suffix}"
    )


def _make_folders(folders: set[Path]) -> None:
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LsfdError(
                f"the output folder {folder} cannot be made ({error.strerror}); choose another one"
            ) from error


def _outputs(images: dict[Path, Path], target_name: Callable[[Path], Path]) -> dict[Path, Path]:
    """Return the output of each input, which are all different and none of the inputs."""
    inputs: dict[Path, Path] = {}
    for path, relative in images.items():
        target = target_name(relative)
        if target in inputs:
            raise LsfdError(
                f"{inputs[target]} and {path} would both be written to {target}; rename one of "
                "them, or keep the format of the inputs"
            )
        inputs[target] = path
    originals = {path.resolve() for path in images}
    for target in inputs:
        if target.resolve() in originals:
            raise LsfdError(f"the output {target} would replace an input; choose another folder")
    return {path: target for target, path in inputs.items()}


def _files(source: Path, out: Path) -> dict[Path, Path]:
    """Return the files of the source with their paths relative to it, without those in ``out``."""
    if source.is_file():
        return {source: Path(source.name)}
    if not source.is_dir():
        raise LsfdError(f"{source} does not exist; give an image file or a folder")
    home, own = source.resolve(), out.resolve()
    if own == home:
        raise LsfdError(f"the outputs cannot go among the inputs in {source}; give another folder")
    files = {path: path.relative_to(source) for path in sorted(source.rglob("*"))}
    return {
        path: relative
        for path, relative in files.items()
        if path.is_file()
        and not any(part.startswith(".") for part in relative.parts)
        and not (own.is_relative_to(home) and path.resolve().is_relative_to(own))
    }
