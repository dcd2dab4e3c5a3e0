"""ONNX Runtime for browsers: fetched from npm once, by a lock file, and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from lsfd.atomic import working_folder
from lsfd.errors import LsfdError

LOCK = Path(__file__).resolve().parent / "npm"
"""The folder of ``package.json`` and ``package-lock.json``."""

PACKAGE = "onnxruntime-web"

RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""What the page loads: the first three for WASM, the others for WebGPU."""

_LONGEST_S = 900.0


def runtime_version() -> str:
    """Return the version of onnxruntime-web that is pinned, such as ``"1.30.0"``."""
    package = json.loads((LOCK / "package.json").read_text(encoding="utf-8"))
    version: str = package["dependencies"][PACKAGE]
    return version


def runtime_folder(cache: Path | None = None) -> Path:
    """Return the folder of ``RUNTIME_FILES``; npm fetches them where it is not there yet.

    Packages are verified against the lock file's checksums and their install scripts are not run.
    Once the folder is there, neither npm nor a network is needed.

    Args:
        cache: where the folder lies; None: ``lsfd`` in the user's cache folder
            (``$XDG_CACHE_HOME``, otherwise ``~/.cache``).

    Raises:
        LsfdError: the files are not there and npm is missing or fails.
    """
    cache = _user_cache() if cache is None else cache
    checksum = hashlib.sha256((LOCK / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = cache / f"{PACKAGE}-{runtime_version()}-{checksum}"
    if not folder.is_dir():
        try:
            _fetch(folder)
        except OSError as error:
            raise LsfdError(
                f"{PACKAGE} cannot be kept in {cache}: {error.strerror or error}; set "
                "XDG_CACHE_HOME to a folder that can be written"
            ) from error
    return folder


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsfd"


def _fetch(folder: Path) -> None:
    """Install the package beside the folder, and move what is needed of it to its place."""
    npm = shutil.which("npm")
    if npm is None:
        raise LsfdError(
            f"the page needs {PACKAGE} {runtime_version()} from npm, which is not installed: "
            f"install Node.js, or copy the folder {folder} from a machine that has it"
        )
    with working_folder(folder) as installed:
        wanted = installed / "wanted"
        for file in ("package.json", "package-lock.json"):
            shutil.copyfile(LOCK / file, installed / file)
        _install(npm, installed)
        wanted.mkdir()
        for file in RUNTIME_FILES:
            shutil.move(installed / "node_modules" / PACKAGE / "dist" / file, wanted / file)
        try:
            wanted.rename(folder)
        except OSError:  # Another process was faster: its folder is the same.
            if not folder.is_dir():
                raise


def _install(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LsfdError(f"npm did not fetch {PACKAGE} within {_LONGEST_S / 60:.0f} min") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        reason = " ".join(line.removeprefix("npm error").strip() for line in lines[:3])
        raise LsfdError(
            f"npm could not fetch {PACKAGE} ({reason or f'exit status {done.returncode}'}); it "
            "needs a network this once"
        )
