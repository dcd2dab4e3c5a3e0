"""lsfd: distil a large super-resolution network into a small fast one.

    from lsfd import load_student

    student = load_student("edsr-s-x4")
    larger = student(image)  # NumPy, PIL or a tensor, in and out

Importing this package imports nothing heavy; the rooms below it (``lsfd.networks``,
``lsfd.distillers``, ``lsfd.training`` ...) import what they need.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsfd.errors import LsfdError
    from lsfd.inference.student import Student, load_student

__all__ = ["LsfdError", "Student", "__version__", "load_student"]

__version__ = "0.1.0"

# A small file may claim any number of pixels. OpenCV, which reads images for training and scoring
# into memory, takes this limit when it is imported; a quarter of its own is large enough.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

_ROOMS = {
    "LsfdError": "lsfd.errors",
    "Student": "lsfd.inference.student",
    "load_student": "lsfd.inference.student",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'lsfd' has no attribute '{name}'")
    return getattr(import_module(_ROOMS[name]), name)
