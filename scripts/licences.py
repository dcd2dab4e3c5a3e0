"""List the licence of every package that the set-up pins: ``results/trust/licences.md``.

    python scripts/licences.py

A package's own metadata tells, in the environment that runs this. What is for other platforms
only, and not installed here, stands below, as its authors publish it.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from lock import BASICSR, MAIN, ROOT, TORCH

from lsfd.reporting.tables import markdown_table

OUTPUT = ROOT / "results" / "trust" / "licences.md"

ELSEWHERE = {
    "colorama": "BSD License", "coloredlogs": "MIT", "exceptiongroup": "MIT License",
    "humanfriendly": "MIT", "pyreadline3": "BSD License", "six": "MIT", "tomli": "MIT",
    "cuda-bindings": "Apache-2.0", "cuda-pathfinder": "Apache-2.0", "nvidia-nvtx": "Apache 2.0",
    "triton": "MIT License",
}  # fmt: skip
NVIDIA = "LicenseRef-NVIDIA-Proprietary"
"""Of the other libraries that torch's build for CUDA needs; each holds its text."""

TEXT = """\
# Licences

Of every package that `requirements*.txt` pin, as its own metadata says; made by
`python scripts/licences.py`. Packages that only the tests, the checks or an extra need are among
them. All may be used beside this project's Apache-2.0. Two sorts ask for more where they are
passed on: libvips (in `pyvips-binary`) is under the LGPL, as a library of its own that can be
replaced, and CUDA's libraries are NVIDIA's.

Not a Python package: the browser page contains `onnxruntime-web` (MIT), which `lsfd web` fetches
by checksum.

"""


def main() -> None:
    """Write the list."""
    rows = [[name, licence(name)] for name in pinned()]
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(TEXT + markdown_table(["package", "licence"], rows) + "\n", encoding="utf-8")


def pinned() -> list[str]:
    """Return the names of all packages of the set-up."""
    texts = (path.read_text(encoding="utf-8") for path in (MAIN, TORCH, BASICSR))
    return sorted({name for text in texts for name in re.findall(r"^([\w.-]+)==", text, re.M)})


def licence(name: str) -> str:
    """Return a package's licence; raises a SystemExit where nobody knows it."""
    try:
        return of_metadata(distribution(name))
    except PackageNotFoundError:
        if name in ELSEWHERE:
            return ELSEWHERE[name]
        if name.startswith(("nvidia-", "cuda-")):
            return NVIDIA
    raise SystemExit(f"{name} is not installed; install it, or name its licence in this script")


def of_metadata(package: Distribution) -> str:
    """Return what a package says: an SPDX expression, else its classifiers, else a free text."""
    metadata = package.metadata
    classifiers = [
        value.split(" :: ")[-1]
        for value in metadata.get_all("Classifier", [])
        if value.startswith("License :: ")
    ]
    expression, *_ = metadata.get_all("License-Expression", [""])
    text, *_ = metadata.get_all("License", [""])
    return (expression or ", ".join(classifiers) or text or "not stated").splitlines()[0]


if __name__ == "__main__":
    main()
