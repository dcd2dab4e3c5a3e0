"""Students that come with the package and are found by name."""

from __future__ import annotations

from pathlib import Path

from lsfd.errors import LsfdError, nearest

FOLDER = Path(__file__).resolve().parent.parent / "students"


def ready_students() -> dict[str, Path]:
    """Return the files of the students that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def find_weights(weights: str | Path) -> Path:
    """Return the file that is meant: a path, or the name of a ready student.

    A file of that name in the working directory goes first, a folder does not.

    Raises:
        LsfdError: there is neither.
    """
    path = Path(weights)
    students = ready_students()
    name = str(weights)
    if name in students and not path.is_file():
        return students[name]
    if path.exists():
        return path
    if path.suffix or len(path.parts) > 1:  # Looks like a path: names have neither.
        raise LsfdError(f"{path}: there is no such file")
    raise LsfdError(
        f"'{name}' is neither a file nor a student that comes with lsfd{nearest(name, students)}"
    )
