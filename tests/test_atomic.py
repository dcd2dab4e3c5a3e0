"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lsfd.atomic import remove_leftovers, scratch_folder, write_bytes, write_text, writing
from lsfd.disk import DiskError, error_told
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
        pytest.raises(LsfdError, match=r"file/x\.txt cannot be written: .*; choose another name"),
        writing(tmp_path / "file" / "x.txt"),
    ):
        pass


def test_a_folder_that_has_gone_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "share" / "file.txt"
    with pytest.raises(DiskError, match="see to it that the disk or network share is there"):
        write_bytes(path, b"", make_folder=False)
    assert not path.parent.exists()


def killed_in(program: str, path: Path) -> None:
    """Run a program of three lines that ends by SIGKILL."""
    text = f"""
import os, sys
from pathlib import Path
from lsfd.atomic import writing, working_folder
path = Path(sys.argv[1])
{program}
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", text, str(path)]).returncode == -9


FILE = "with writing(path) as file:\n    file.write(b'half')\n    file.flush()"
FOLDER = "with working_folder(path) as folder:\n    (folder / 'half').touch()"


@pytest.mark.parametrize("program", [FILE, FOLDER])
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path, program: str) -> None:
    path = tmp_path / "file.txt"
    other = tmp_path / ".other.txt.0.tmp"
    other.touch()  # That of another file is no business of this one.
    killed_in(program, path)
    assert len(list(tmp_path.iterdir())) == 2
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert set(tmp_path.iterdir()) == {path, other}
    killed_in(program, path)
    remove_leftovers(path)
    assert set(tmp_path.iterdir()) == {path, other}


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with writing(path) as first:
        first.write(b"first")
        remove_leftovers(path)
        with writing(path) as second:
            second.write(b"second")
            remove_leftovers(path)
            write_text(path, "third")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_two_processes_go_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    for number in range(3):
        (tmp_path / f".file.txt.{number}.tmp").touch()
    write_text(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


def test_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = []
    monkeypatch.setattr(fcntl, "flock", lambda handle, _: locked.append(os.fstat(handle).st_ino))
    victim, path = tmp_path / "victim", tmp_path / "file.txt"
    victim.write_text("kept")
    (tmp_path / ".file.txt.0.tmp").symlink_to(victim)
    write_text(path, "whole")
    assert victim.read_text() == "kept" and path.read_text() == "whole" and not path.is_symlink()
    assert locked and victim.stat().st_ino not in locked


def test_files_without_lasting_numbers_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsfd.atomic._is_at", lambda *_: False)
    write_text(tmp_path / "file.txt", "whole")
    assert (tmp_path / "file.txt").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [tmp_path / "file.txt"]


@pytest.mark.parametrize("name", ["/", ".", "x" * 300, "file.txt/name"])
def test_a_name_that_cannot_be_written_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    with pytest.raises(LsfdError, match=r"; choose another (name|one)$") as error:
        write_text(Path(name), "text")
    assert not isinstance(error.value, DiskError)


def test_without_locks_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = tmp_path / ".file.txt.0.tmp"
    left.touch()  # It may be another process's.
    write_text(tmp_path / "file.txt", "whole")
    assert (tmp_path / "file.txt").read_text() == "whole" and left.exists()


def test_the_scratch_folder_goes_with_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as first, scratch_folder() as second:
        assert first != second and first.stat().st_mode & 0o777 == 0o700
        (first / "file").touch()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space there, then give the same command again"),
        (errno.EROFS, "make the disk writable, or choose a folder elsewhere, then"),
        (errno.ESTALE, "see to it that the disk or network share is there, then"),
    ],
)
def test_the_sentence_says_what_helps(tmp_path: Path, number: int, advice: str) -> None:
    problem = OSError(number, os.strerror(number))
    with (
        pytest.raises(DiskError, match=rf"x cannot be written: {problem.strerror}; {advice}"),
        writing(tmp_path / "x"),
    ):
        raise problem
    told = error_told(f"wbuffer_write: write failed; unix error: {problem.strerror}")
    assert told is not None and told.errno == number
    assert error_told("not enough pixels") is None
