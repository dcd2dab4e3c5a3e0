"""Write anew the pinned versions, with hashes, of the reproducible set-up.

    python scripts/lock.py [--upgrade]

Makes four files from setup.cfg with ``uv pip compile``, for Python 3.10 to 3.12 on any platform;
pip refuses whatever has another hash. What is pinned already stays, unless ``--upgrade`` is given.

requirements.txt             everything but what the others hold
requirements-torch.txt       torch, and what its CUDA build needs on Linux: gigabytes
requirements-torch-cpu.txt   instead of it: torch's CPU build, which few indexes have
requirements-basicsr.txt     BasicSR, which is built at the set-up, with torch installed
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAIN = ROOT / "requirements.txt"
TORCH = ROOT / "requirements-torch.txt"
TORCH_CPU = ROOT / "requirements-torch-cpu.txt"
BASICSR = ROOT / "requirements-basicsr.txt"

_WITH_TORCH = re.compile(r"(nvidia|cuda)-|(torch|triton)==")
_PACKAGE = re.compile(r"^\S+==.*(?:\n +--hash=.*)+", re.MULTILINE)

CPU_BUILD = """\
torch==2.13.0+cpu \\
    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"""
"""For Python 3.11, Linux, x86-64. Its own file: pip prefers builds whose hash an index tells."""

HEADER = """\
# Made by scripts/lock.py; README says how the set-up uses it.
"""


def main() -> None:
    """Resolve, and write the files."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--upgrade", action="store_true", help="take the newest versions")
    packages = resolve(arguments.parse_args().upgrade)
    files: dict[Path, list[str]] = {MAIN: [], TORCH: [], TORCH_CPU: [CPU_BUILD], BASICSR: []}
    for package in packages:
        files[place_of(package)].append(package)
    for path, content in files.items():
        path.write_text(HEADER + "\n".join(content) + "\n", encoding="utf-8")


def resolve(upgrade: bool) -> list[str]:
    """Return each package of the set-up: name, version, condition and hashes, as pip reads it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "requirements.txt"
        if not upgrade:  # uv keeps what it finds in the file that it writes.
            pinned = (path.read_text(encoding="utf-8") for path in (MAIN, TORCH, BASICSR))
            output.write_text("\n".join(pinned), encoding="utf-8")
        command = [
            "uv", "pip", "compile", "setup.cfg", "--extra", "dev", "--universal", "-p", "3.10",
            "--no-build-isolation", "--generate-hashes", "--no-annotate", "--quiet",
            "-o", str(output),
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True)
        return _PACKAGE.findall(output.read_text(encoding="utf-8"))


def place_of(package: str) -> Path:
    """Return the file that a package belongs to."""
    if package.startswith("basicsr=="):
        return BASICSR
    return TORCH if _WITH_TORCH.match(package) else MAIN


if __name__ == "__main__":
    main()
