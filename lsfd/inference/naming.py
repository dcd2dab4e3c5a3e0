"""Which files are upscaled, and what their outputs are called."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsfd.errors import LsfdError, nearest
from lsfd.imaging.picture import PICTURE_EXTENSIONS
from lsfd.imaging.picture_files import FORMATS

_WRITTEN_AS = {".gif": ".png", ".jfif": ".jpg", ".jpe": ".jpg"}
"""Endings of inputs that outputs do not get."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        outputs: the output of each input; all different and none of the inputs.
        skipped: files whose names say that they are no images.
    """

    outputs: dict[Path, Path]
    skipped: list[Path]


def plan(sources: Sequence[Path], out: Path, suffix: str, extension: str | None) -> Plan:
    """Find the images and name their outputs.

    Args:
        sources: image files, folders (whose trees are kept), or patterns such as ``photos/*.jpg``
            or ``photos/**/*.png`` (whose folders behind the first wildcard are kept).
        out: a folder; for one file also a file name with an image extension, which then counts
            instead of ``suffix`` and ``extension``. A folder with a dot in its name has to exist
            for that.
        suffix: put behind each file name, before the extension: ``_x4`` makes ``cat_x4.png``.
        extension: of the outputs, without dot; None: that of each input.

    Raises:
        LsfdError: a source does not exist, there is no image, two inputs would be written to one
            file, an output would replace an input, or lie in another folder.
    """
    if any(sign in f"{suffix}{extension or ''}" for sign in "/\\\0"):
        raise LsfdError(f"the outputs lie in {out}: a suffix or format has no folder in it")
    files: dict[Path, Path] = {}
    for source in sources:
        files |= _files(source, out)
    images = {path: name for path, name in files.items() if _is_image(path)}
    if not images:
        raise LsfdError(f"there is no image in {', '.join(map(str, sources))}")
    one_file = len(sources) == 1 and sources[0].is_file()
    target_name = _target_names(one_file, out, suffix, extension)
    return Plan(_outputs(images, target_name), [path for path in files if path not in images])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_EXTENSIONS


def _target_names(
    one_file: bool, out: Path, suffix: str, extension: str | None
) -> Callable[[Path], Path]:
    """Return what gives the output file for the path of an input relative to the source."""
    if one_file and not out.is_dir() and out.suffix:
        if out.suffix.lower() not in FORMATS:
            raise LsfdError(
                f"{out}: '{out.suffix}' is no image format that can be written"
                f"{nearest(out.suffix, FORMATS)}; a folder of that name has to be made before"
            )
        return lambda relative: out
    ending = None if extension is None else f".{extension.removeprefix('.').lower()}"
    if ending is not None and ending not in FORMATS:
        hint = nearest(ending, FORMATS)
        raise LsfdError(f"'{extension}' is no image format that can be written{hint}")

    def named(relative: Path) -> Path:
        own = _WRITTEN_AS.get(relative.suffix.lower(), relative.suffix)
        return out / relative.parent / f"{relative.stem}{suffix}{ending or own}"

    return named


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
    """Return the files of a source with their paths relative to it, without those in ``out``."""
    if source.is_file():
        return {source: Path(source.name)}
    if source.is_dir():
        root, found = source, list(source.rglob("*"))
    elif glob.has_magic(str(source)):
        root = _fixed_part(source)
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
        if not found:
            raise LsfdError(f"nothing is called like {source}; put a pattern into quotes")
    else:
        raise LsfdError(f"{source} does not exist; give an image file, a folder or a pattern")
    home, own = root.resolve(), out.resolve()
    if source.is_dir() and own == home:
        raise LsfdError(f"the outputs cannot go among the inputs in {source}; give another folder")
    below = own != home and own.is_relative_to(home)
    files = {path: path.relative_to(root) for path in sorted(found)}
    return {
        path: relative
        for path, relative in files.items()
        if path.is_file()
        and not any(part.startswith(".") for part in relative.parts)
        and not (below and path.resolve().is_relative_to(own))
    }


def _fixed_part(pattern: Path) -> Path:
    """Return the folder that a pattern begins with."""
    fixed = Path(pattern.anchor)
    for part in pattern.relative_to(pattern.anchor).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed
