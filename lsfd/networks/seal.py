"""A file's digest of itself, written into it: a flipped bit in a weight does not go unnoticed.

The digest stands in the card's JSON as ``"lsfd_seal"``. It is the SHA-256 of the whole file, in
which the digest's own place holds ``BLANK``; of two files that belong together, of both. It tells
damage, not a forger: who changes a file on purpose can write the digest that belongs to it.

It is looked for in the file's bytes, so that it is found whatever has become of the metadata around
it; ``"lsfd_sealed"`` says that there is one, should its own name be damaged. Files without one, of
older versions or from others, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from lsfd.errors import LsfdError
from lsfd.networks.card import METADATA_KEY

KEY = "lsfd_seal"

BLANK = hashlib.sha256(b"lsfd").hexdigest()
"""Stands for the digest where it is not known yet."""

# JSON in JSON escapes quotes by backslashes, XML in its own way.
_QUOTE = rb"(?:\\*\"|&quot;)"
_SEAL = re.compile(rb"lsfd_seal" + _QUOTE + rb": " + _QUOTE + rb"([0-9a-f]{64})" + _QUOTE)


def with_seal(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a file's metadata with a place for the digest in its card."""
    card = {**json.loads(metadata[METADATA_KEY]), KEY: BLANK, f"{KEY}ed": True}
    return {**metadata, METADATA_KEY: json.dumps(card, sort_keys=True)}


def sealed(data: bytes, beside: bytes = b"") -> bytes:
    """Return a file that was written with the metadata of :func:`with_seal`, the digest in place.

    Args:
        data: the file.
        beside: another file that belongs to it.
    """
    return data.replace(BLANK.encode(), _digest(data, beside), 1)


def check_seal(data: bytes, beside: bytes = b"") -> None:
    """Compare a file with its digest, where it has one.

    Args:
        data: the file.
        beside: the other file that belongs to it.

    Raises:
        LsfdError: it is not what was written.
    """
    if KEY.encode() not in data:
        return
    if not _is_whole(data, beside):
        raise LsfdError(
            "is damaged: its content does not have the digest that was written with it; fetch or "
            "make it again"
        )


def check_seal_of(path: Path) -> None:
    """Compare a single file with its digest, where it has one.

    Raises:
        LsfdError: naming the file: it cannot be read, or is not what was written.
    """
    try:
        check_seal(path.read_bytes())
    except OSError as error:
        raise LsfdError(f"{path}: cannot be read: {error.strerror}") from error
    except LsfdError as error:
        raise LsfdError(f"{path}: {error}") from error


def _is_whole(data: bytes, beside: bytes) -> bool:
    seal = _SEAL.search(data)
    if seal is None:
        return False
    blank = data[: seal.start(1)] + BLANK.encode() + data[seal.end(1) :]
    return seal[1] == _digest(blank, beside)


def _digest(data: bytes, beside: bytes) -> bytes:
    digest = hashlib.sha256(data)
    digest.update(beside)
    return digest.hexdigest().encode()
