"""The packed image store: a training set as two memory-mapped files of raw pixels.

Decoding image files for every patch costs far more than cutting the patch. A store holds all
images of a set, decoded once::

    FOLDER/gt.bin      HR images, uint8, H x W x 3, one after the other
    FOLDER/lq.bin      their LR images, in the same order
    FOLDER/index.json  version, scale, names, HR shapes, where everything came from

The operating system keeps in memory what is being read and shares it between all worker
processes, so a set may be larger than memory. ``lsfd.data.pack`` makes stores.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from lsfd.errors import LsfdError

VERSION = 1
GT_FILE = "gt.bin"
LQ_FILE = "lq.bin"
INDEX_FILE = "index.json"

_SEAL = "seal"
"""Entry of the index: a digest of the others."""

_MOST_TRIES = 10
"""To open a store that is being replaced; on some network shares numbers of files never agree."""

_Side = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class StoreIndex:
    """What ``index.json`` says about a store."""

    version: int
    scale: Annotated[int, Field(ge=1)]
    names: Annotated[list[str], Field(min_length=1)]
    """``ROOT/RELATIVE/NAME.EXT`` of each HR image; ``ROOT`` is its root folder's name."""
    shapes: list[tuple[_Side, _Side]]
    """Height and width of each HR image, both multiples of ``scale``."""
    lq_origin: str
    """Where the LR images came from: ``"files"``, or ``"MATLAB bicubic"`` of the HR images, with
    what degraded them behind it."""
    left_out: int
    """Number of images that were smaller than the asked ``min_size``."""
    source: str
    """Digest of the request and of the names, sizes and times of the files it found."""
    fingerprint: str
    """Digest of the content: scale, names, shapes and every pixel."""

    def save(self, folder: Path) -> None:
        """Write ``index.json`` into ``folder``."""
        # First, so that no damage takes it out and leaves JSON.
        text = json.dumps({_SEAL: self._seal(), **asdict(self)}, indent=1)
        (folder / INDEX_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> StoreIndex:
        """Read ``index.json`` of a store.

        Raises:
            OSError, ValueError: the file is missing, damaged, or not an index.
        """
        text = (folder / INDEX_FILE).read_bytes()
        index = TypeAdapter(cls).validate_json(text, strict=True)
        if index.version != VERSION:
            raise ValueError(f"version {index.version} instead of {VERSION}")
        if len(index.names) != len(index.shapes):
            raise ValueError(f"{len(index.names)} names for {len(index.shapes)} images")
        if any(side % index.scale for shape in index.shapes for side in shape):
            raise ValueError(f"a side that is no multiple of the scale {index.scale}")
        if json.loads(text).get(_SEAL, index._seal()) != index._seal():  # Older ones have none.
            raise ValueError(f"{INDEX_FILE} was changed")
        return index

    def _seal(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


class Store:
    """The images of one packed set, as memory-mapped arrays.

    Pickles as its folder's name, so that sending it to worker processes costs nothing.
    """

    def __init__(self, folder: Path, index: StoreIndex) -> None:
        """Map the files of the store in ``folder``; ``open_store`` is the way to get one."""
        self.folder = folder
        self.index = index
        sizes = [height * width * 3 for height, width in index.shapes]
        self._gt_starts = list(accumulate(sizes, initial=0))[:-1]
        self._gt = self._map(GT_FILE, sum(sizes))
        self._lq = self._map(LQ_FILE, sum(sizes) // index.scale**2)

    def __len__(self) -> int:
        return len(self.index.names)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self.fingerprint)

    @property
    def names(self) -> list[str]:
        """``ROOT/RELATIVE/NAME.EXT`` of each HR image."""
        return self.index.names

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each HR image, both multiples of ``scale``."""
        return self.index.shapes

    @property
    def scale(self) -> int:
        """HR size over LR size."""
        return self.index.scale

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the content; equal content gives an equal digest anywhere."""
        return self.index.fingerprint

    def gt(self, index: int) -> NDArray[np.uint8]:
        """Return HR image ``index``: uint8, H x W x 3, RGB; a read-only view, nothing copied."""
        height, width = self.shapes[index]
        start = self._gt_starts[index]
        return self._gt[start : start + height * width * 3].reshape(height, width, 3)

    def lq(self, index: int) -> NDArray[np.uint8]:
        """Return LR image ``index``: uint8, H/scale x W/scale x 3, RGB; a read-only view."""
        height, width = (side // self.scale for side in self.shapes[index])
        start = self._gt_starts[index] // self.scale**2
        return self._lq[start : start + height * width * 3].reshape(height, width, 3)

    def _map(self, name: str, size: int) -> NDArray[np.uint8]:
        path = self.folder / name
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} bytes instead of {size}")
        # As a plain array: slicing np.memmap objects costs several times as much.
        return np.asarray(np.memmap(path, np.uint8, mode="r"))


def open_store(folder: Path) -> Store:
    """Open a packed store.

    Raises:
        LsfdError: there is no store in ``folder``, or it is damaged or of another version.
    """
    try:
        for _ in range(_MOST_TRIES):
            before = folder.stat().st_ino
            store = Store(folder, StoreIndex.load(folder))
            if folder.stat().st_ino == before:  # Otherwise index and pixels may be of two stores.
                return store
        raise OSError("it is replaced again and again")
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise LsfdError(
            f"{folder} is not a usable image store ({reason}); delete the folder and it is "
            "built again from the images"
        ) from error


def _reopen(folder: Path, fingerprint: str) -> Store:
    """Open a store in another process, which must find the content that the first one saw."""
    store = open_store(folder)
    if store.fingerprint != fingerprint:
        raise LsfdError(f"the image store {folder} was rebuilt while in use; start the run again")
    return store
