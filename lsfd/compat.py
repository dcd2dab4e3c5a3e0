"""The one place where a quirk of BasicSR, torchvision or Python is met.

Importing this module makes ``import basicsr`` (1.4.2) work. Every module that imports BasicSR or
torchvision imports this one first. Each shim is applied only where the quirk is present.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import torch

_torchvision_schemas: torch.library.Library | None = None


def _define_missing_torchvision_operators() -> None:
    """Let torchvision import where its compiled operators cannot be loaded.

    Needed with torchvision >= 0.16 beside a torch of another build (a CUDA torchvision beside a
    CPU torch): its import registers fake kernels for ``nms`` and ``qnms``, which then do not
    exist. Super-resolution never calls them. Can go when torchvision publishes CPU wheels on the
    default index, or guards that registration.
    """
    global _torchvision_schemas
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _torchvision_schemas is not None:
        return
    for library in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
        except (OSError, ImportError):
            continue
        return  # The real operators are there; defining them again would be an error.
    library_fragment = torch.library.Library("torchvision", "FRAGMENT")
    library_fragment.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library_fragment.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _torchvision_schemas = library_fragment  # The definitions live as long as this object.


def _alias_functional_tensor() -> None:
    """Give BasicSR 1.4.2 the module ``torchvision.transforms.functional_tensor``.

    Gone since torchvision 0.17; BasicSR's degradations import ``rgb_to_grayscale`` from it. Can
    go when BasicSR imports it from ``torchvision.transforms.functional``.
    """
    name = "torchvision.transforms.functional_tensor"
    if importlib.util.find_spec("torchvision") is None or name in sys.modules:
        return
    if importlib.util.find_spec(name) is None:
        from torchvision.transforms import functional

        module = types.ModuleType(name)
        module.__dict__["rgb_to_grayscale"] = functional.rgb_to_grayscale
        sys.modules[name] = module


def _provide_distutils_version() -> None:
    """Give BasicSR 1.4.2 ``distutils.version.LooseVersion``.

    ``distutils`` is gone since Python 3.12 (setuptools brings it back only where it is
    installed). BasicSR compares torchvision's version with it. Can go when BasicSR uses
    ``packaging``.
    """
    if importlib.util.find_spec("distutils") is not None:
        return
    from packaging.version import Version

    package = types.ModuleType("distutils")
    package.__path__ = []
    module = types.ModuleType("distutils.version")
    module.__dict__["LooseVersion"] = Version
    package.__dict__["version"] = module
    sys.modules["distutils"] = package
    sys.modules["distutils.version"] = module


_define_missing_torchvision_operators()
_alias_functional_tensor()
_provide_distutils_version()
