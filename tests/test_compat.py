"""BasicSR imports beside today's packages, and on a Python without distutils."""

from __future__ import annotations

import subprocess
import sys

import lsfd.compat

import torchvision

PROGRAM = """
import sys
sys.modules["distutils"] = None  # what Python 3.12 is like without setuptools
import lsfd.compat
from basicsr.archs.edsr_arch import EDSR
from basicsr.data import degradations
from distutils.version import LooseVersion
assert LooseVersion("0.10.0") > LooseVersion("0.9.1")
print(EDSR(3, 3, num_feat=4, num_block=1, upscale=2).conv_first.weight.shape[0])
"""


def test_basicsr_imports_without_distutils() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "4", result.stderr


def test_shims_are_applied_once_and_only_where_needed() -> None:
    from torchvision.transforms import functional, functional_tensor

    assert functional_tensor.rgb_to_grayscale is functional.rgb_to_grayscale
    schema = lsfd.compat._torchvision_schemas
    # Either torchvision's own operators are there, or ours stand in for them; never both.
    assert (schema is None) == torchvision.extension._has_ops()
