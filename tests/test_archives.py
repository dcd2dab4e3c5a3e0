"""Unpacking archives, friendly and hostile."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lsfd.data.archives import extract
from lsfd.errors import LsfdError

NOISE = np.random.default_rng(0).integers(0, 256, 700_001, dtype=np.uint8).tobytes()


def zip_of(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def tar_of(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


PACKERS = [("a.zip", zip_of), ("a.tar", tar_of), ("a.tar.gz", tar_of)]
FILES = {"top/HR/1.png": b"one", "top/HR/deep/2.png": b"two", "top/LR/1.png": b"small"}


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_extract_writes_the_files_of_the_archive(tmp_path, name, pack):
    archive = pack(tmp_path / name, FILES)
    extract(archive, tmp_path / "out" / "all")
    extract(archive, tmp_path / "out" / "hr", inside="top/HR")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == {f"all/{file}": content for file, content in FILES.items()} | {
        "hr/1.png": b"one",
        "hr/deep/2.png": b"two",
    }


HOSTILE = [
    ("parent", zip_of, "a.zip", {"../evil": b"x"}, {}),
    ("absolute", zip_of, "a.zip", {"/tmp/evil": b"x"}, {}),
    ("windows parent", zip_of, "a.zip", {"a\\..\\..\\evil": b"x"}, {}),
    ("windows drive", zip_of, "a.zip", {"C:\\evil": b"x"}, {}),
    ("zip link", zip_of, "a.zip", {"link": b"/etc/passwd"}, {"mode": stat.S_IFLNK | 0o777}),
    ("tar parent", tar_of, "a.tar", {"a/../../evil": b"x"}, {}),
    ("tar absolute", tar_of, "a.tar", {"/tmp/evil": b"x"}, {}),
    ("symbolic link", tar_of, "a.tar", {"link": b""}, {"kind": tarfile.SYMTYPE}),
    ("hard link", tar_of, "a.tar", {"link": b""}, {"kind": tarfile.LNKTYPE}),
    ("device", tar_of, "a.tar", {"null": b""}, {"kind": tarfile.CHRTYPE}),
    ("pipe", tar_of, "a.tar", {"pipe": b""}, {"kind": tarfile.FIFOTYPE}),
]


@pytest.mark.parametrize(("pack", "name", "files", "options"), [case[1:] for case in HOSTILE],
                         ids=[case[0] for case in HOSTILE])  # fmt: skip
def test_extract_refuses_what_could_write_elsewhere(tmp_path, pack, name, files, options):
    archive = pack(tmp_path / name, {"good.png": b"good"} | files, **options)
    with pytest.raises(LsfdError, match="not safe"):
        extract(archive, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(("name", "pack"), [("a.zip", zip_of), ("a.tar.gz", tar_of)])
def test_extract_refuses_a_bomb(tmp_path, name, pack):
    archive = pack(tmp_path / name, {f"{i}.png": bytes(8 << 20) for i in range(4)})
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(LsfdError, match="far more than images would"):
        extract(archive, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, name, pack):
    archive = pack(tmp_path / name, {f"{i}.png": NOISE for i in range(3)})
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(LsfdError, match=re.escape(str(archive))):
        extract(archive, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [archive]


def test_a_flipped_byte_in_a_zip_is_noticed(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"1.png": NOISE})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(LsfdError, match=re.escape(str(archive))):
        extract(archive, tmp_path / "out")


def test_extract_refuses_what_is_no_archive_or_lacks_the_folder(tmp_path):
    page = tmp_path / "set.zip"
    page.write_text("<html>Not found</html>")
    with pytest.raises(LsfdError, match="neither a zip nor a tar"):
        extract(page, tmp_path / "out")
    with pytest.raises(LsfdError, match="no file below 'top/GT'"):
        extract(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out", inside="top/GT")
    with pytest.raises(LsfdError, match=r"missing\.zip"):
        extract(tmp_path / "missing.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_extract_keeps_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.png").write_bytes(b"mine")
    with pytest.raises(LsfdError, match="exists already"):
        extract(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.png"]
