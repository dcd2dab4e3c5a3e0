"""Scoring images that somebody else has upscaled."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from tqdm import tqdm

from lsfd.errors import LsfdError
from lsfd.evaluation.scores import ImageScores, SetScores
from lsfd.evaluation.sets import images_by_name, set_name
from lsfd.imaging.files import read_image
from lsfd.imaging.resize import modcrop

_NAMES_SHOWN = 5


def score_folders(sr: Path, hr: Path, scale: int) -> SetScores:
    """Score a folder of super-resolved images against the originals, as the papers do.

    The originals are cropped to a multiple of the scale, and a border of ``scale`` pixels is left
    out. Files belong together when their names are equal but for the extension, or when the
    super-resolved one has ``x4`` or ``_x4`` (the scale) appended. The set is named after the
    folder of the originals, or after its parent when that folder is called ``HR``.

    Args:
        sr: folder of the super-resolved images.
        hr: folder of the originals.
        scale: the factor by which the images were enlarged.

    Raises:
        LsfdError: a file has no counterpart or more than one, cannot be read, is too small, or
            has another size than its original.
    """
    if scale < 1:
        raise LsfdError(f"the scale must be a whole number from 1 on, not {scale}")
    pairs = _match(sr, hr, scale)
    sr_paths, hr_paths = zip(*pairs.values(), strict=True)
    with ThreadPoolExecutor() as pool:
        scores = pool.map(_score_files, sr_paths, hr_paths, repeat(scale))
        bar = tqdm(scores, "score", total=len(pairs), disable=None)
        return SetScores(set_name(hr), dict(zip(pairs, bar, strict=True)))


def _match(sr: Path, hr: Path, scale: int) -> dict[str, tuple[Path, Path]]:
    """Return the files that belong together by the name of the original."""
    originals = images_by_name(hr)
    if not originals:
        raise LsfdError(f"there is no image in {hr}")
    matched: dict[str, Path] = {}
    strangers = []
    for name, path in images_by_name(sr).items():
        bare = name if name in originals else re.sub(rf"_?x{scale}$", "", name)
        if bare not in originals:
            strangers.append(name)
        elif bare in matched:
            raise LsfdError(
                f"{matched[bare]} and {path} both belong to {originals[bare]}; remove one of them"
            )
        else:
            matched[bare] = path
    missing = [name for name in originals if name not in matched]
    problems = [
        f"{_listed(names)} in {there} without counterpart in {elsewhere}"
        for names, there, elsewhere in ((missing, hr, sr), (strangers, sr, hr))
        if names
    ]
    if problems:
        raise LsfdError(
            f"the folders do not fit together: {'; '.join(problems)}; "
            f"names must be equal, or end in 'x{scale}' or '_x{scale}' in {sr}"
        )
    return {name: (matched[name], originals[name]) for name in originals}


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _score_files(sr_path: Path, hr_path: Path, scale: int) -> ImageScores:
    """Score one image."""
    sr, hr = read_image(sr_path), modcrop(read_image(hr_path), scale)
    if sr.shape != hr.shape:
        raise LsfdError(
            f"{sr_path} has {sr.shape[1]}x{sr.shape[0]} pixels, but {hr_path}, cropped to a "
            f"multiple of {scale}, has {hr.shape[1]}x{hr.shape[0]}"
        )
    try:
        return ImageScores.of(sr, hr, crop_border=scale)
    except LsfdError as error:
        raise LsfdError(f"{sr_path}: {error}") from error
