"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsfd.atomic import write_text, writing
from lsfd.errors import LsfdError


def test_the_name_appears_with_the_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    with writing(path, durable=True) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), OSError(28, "full")])
def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    expected = LsfdError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), writing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder is needed")
    with (
        pytest.raises(LsfdError, match=r"file/x\.txt cannot be written: .*; go elsewhere"),
        writing(tmp_path / "file" / "x.txt", advice="go elsewhere"),
    ):
        pass
