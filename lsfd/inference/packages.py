"""Packages that only exported files need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lsfd.errors import LsfdError

ONNX = "onnx onnxruntime onnxscript"
OPENVINO = f"{ONNX} openvino"
"""It is converted from ONNX."""


@contextmanager
def needing(packages: str) -> Iterator[None]:
    """Turn a failed import into advice.

    Args:
        packages: names for pip.

    Raises:
        LsfdError: one of them is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise LsfdError(
            f"this needs a package that is not installed ({error}): pip install {packages}"
        ) from error
