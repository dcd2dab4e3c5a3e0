"""Downloads against a real server on this machine, with the faults that servers have."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

from lsfd.data import download as module
from lsfd.data.catalogue import CATALOGUE, Archive, PublicSet
from lsfd.data.download import download, fetch_set
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image

CONTENT = np.random.default_rng(0).integers(0, 256, 700_001, dtype=np.uint8).tobytes()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file, with the faults asked for, and remembers the ranges requested."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges: list[str | None] = []
        self.honours_ranges = True
        self.sends_another_range = False
        self.statuses: list[int] = []  # to answer with first, instead of the file
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.redirects: list[str] = []  # addresses to send the next requests to
        self.stalls: list[int] = []  # bytes after which the next answers stop coming
        self.goes_on = threading.Event()  # for those that stopped
        self.waited_in_vain = False  # The client was more patient than the server.
        self.never_ends = False
        self.length: str | None = None  # what it says of the file, instead of the truth

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/set.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects.pop(0))
            self.end_headers()
            return
        start, size = 0, len(server.content)
        if wanted and server.honours_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))
            start = start // 2 if server.sends_another_range else start
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if not server.never_ends:
            self.send_header("Content-Length", server.length or str(size - start))
        self.end_headers()
        body = server.content[start:]
        if server.stalls:
            self.wfile.write(body[: server.stalls.pop(0)])
            server.waited_in_vain |= not server.goes_on.wait(5)
            return
        with contextlib.suppress(ConnectionError):  # The client may have heard enough.
            self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
            while server.never_ends:
                self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_PAUSE_S", 0.001)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "set.zip"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def leave_part(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(content)


def visible(folder: Path) -> list[Path]:
    """Return what lies in a folder beside locks."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_download_brings_the_file_and_leaves_nothing_else(server, path, checksum):
    download(server.url, path, checksum)
    assert path.read_bytes() == CONTENT
    assert visible(path.parent) == [path]


def test_a_right_file_is_not_downloaded_again(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    download(server.url, path, SHA256)
    assert server.ranges == []


def test_a_wrong_file_put_there_by_hand_is_named_and_kept(server, path):
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(LsfdError, match=re.escape(str(path))):
        download(server.url, path, SHA256)
    assert path.read_bytes() == b"something else"
    assert server.ranges == []


def test_download_goes_on_where_it_broke_off(server, path):
    leave_part(path, CONTENT[:123_456])
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == ["bytes=123456-"]


def test_a_server_that_breaks_off_is_asked_for_the_rest(server, path):
    server.cuts = [200_000, 100_000]
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    first, second, third = server.ranges
    assert first is None
    # What arrived is kept, but for the last block at most.
    assert 100_000 < int(second[6:-1]) <= 200_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 300_000


def test_breaking_off_more_often_than_the_attempts_is_no_failure_while_bytes_arrive(server, path):
    server.cuts = [100_000] * (module._ATTEMPTS + 1)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_sends_it_all_again(server, path):
    leave_part(path, b"x" * 1000)
    server.honours_ranges = False
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_a_server_that_sends_another_range_is_asked_for_it_all(server, path):
    leave_part(path, CONTENT[:1000])
    server.sends_another_range = True
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


def test_a_server_that_ignores_ranges_and_always_breaks_off_ends_in_an_error(server, path):
    server.honours_ranges = False
    server.cuts = [200_000] * 50
    with pytest.raises(LsfdError, match="keeps breaking off"):
        download(server.url, path, SHA256)
    assert len(server.ranges) <= 2 * module._ATTEMPTS
    assert not path.exists()


def test_a_whole_part_needs_no_further_byte(server, path):
    leave_part(path, CONTENT)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_dropped(server, path):
    leave_part(path, CONTENT + b"more")
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_wrong_content_is_removed_and_named(server, path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(LsfdError, match="not the file that was published") as caught:
        download(server.url, path, SHA256)
    assert server.url in str(caught.value) and SHA256 in str(caught.value)
    assert visible(path.parent) == []


def test_a_busy_server_is_asked_again(server, path):
    server.statuses = [503, 429]
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(server, path):
    server.statuses = [404] * 50
    with pytest.raises(LsfdError, match="the server answered 404"):
        download(server.url, path, SHA256)
    assert len(server.ranges) == 1


def test_no_network_says_where_to_put_the_file(server, path):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(LsfdError, match="no connection") as caught:
        download(url, path, SHA256)
    assert url in str(caught.value) and str(path) in str(caught.value)


def test_a_malformed_address_is_an_error_of_one_sentence(path):
    with pytest.raises(LsfdError, match="cannot download nowhere"):
        download("nowhere", path, SHA256)


def test_a_redirect_to_another_host_is_followed_and_the_checksum_decides(server, path):
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        # Another name of this machine is another host to a client.
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        server.redirects = [elsewhere, elsewhere]
        download(server.url, path, SHA256)
        assert path.read_bytes() == CONTENT
        path.unlink()
        other.content = b"something else"
        with pytest.raises(LsfdError, match="not the file that was published"):
            download(server.url, path, SHA256)
        other.shutdown()
        thread.join()
    assert visible(path.parent) == []


@pytest.mark.parametrize("target", ["/set.zip", "file:///etc/hostname"])
def test_redirects_in_a_circle_or_to_a_local_file_end_in_an_error(server, path, target):
    server.redirects = [target] * 200
    with pytest.raises(LsfdError, match="cannot download http"):
        download(server.url, path, SHA256)
    assert visible(path.parent) == []


def test_a_server_that_stops_sending_is_asked_for_the_rest(server, path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT_S", 1.0)
    server.stalls = [300_000]
    download(server.url, path, SHA256)
    server.goes_on.set()
    assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 2
    assert not server.waited_in_vain


def test_a_server_that_stays_silent_is_named(server, path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.05)
    server.stalls = [0] * module._ATTEMPTS
    with pytest.raises(LsfdError, match=r"did not answer|keeps breaking off") as caught:
        download(server.url, path, SHA256)
    server.goes_on.set()
    assert server.url in str(caught.value)
    assert not server.waited_in_vain


def test_an_answer_without_end_is_cut_off(server, path):
    server.never_ends = True
    with pytest.raises(LsfdError, match="not the file that was published"):
        download(server.url, path, SHA256, len(CONTENT))
    assert visible(path.parent) == []


@pytest.mark.parametrize("length", ["many", "-1", "700001, 700001"])
def test_a_strange_length_is_no_traceback(server, path, length):
    server.length = length
    with contextlib.suppress(LsfdError):
        download(server.url, path, SHA256)
    assert not path.exists() or path.read_bytes() == CONTENT


def test_two_downloads_of_one_file_do_not_meet(server, path):
    server.stalls = [300_000]
    first = threading.Thread(target=download, args=(server.url, path, SHA256))
    first.start()
    while not part_of(path).exists():
        assert first.is_alive()
        time.sleep(0.001)
    with pytest.raises(LsfdError, match="another process is downloading"):
        download(server.url, path, SHA256)
    server.goes_on.set()
    first.join()
    assert path.read_bytes() == CONTENT


@pytest.fixture
def picture(tmp_path: Path) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def catalogue(server, tmp_path, picture, monkeypatch):
    """A catalogue of two sets in one archive that the server has."""
    write_image(tmp_path / "picture.png", picture)
    with zipfile.ZipFile(tmp_path / "benchmark.zip", "w") as archive:
        for name in ("Set5", "Set14"):
            archive.write(tmp_path / "picture.png", f"benchmark/{name}/HR/baby.png")
    server.content = (tmp_path / "benchmark.zip").read_bytes()
    checksum = "sha256:" + hashlib.sha256(server.content).hexdigest()
    entry = Archive(server.url, checksum, len(server.content), "this test")
    for name in ("Set5", "Set14"):
        monkeypatch.setitem(CATALOGUE, name, PublicSet(name, entry, f"benchmark/{name}/HR"))


def test_fetch_set_lays_out_the_images_and_downloads_an_archive_once(
    server, catalogue, tmp_path, picture
):
    root = tmp_path / "sets"
    for _ in range(2):
        for name in ("Set5", "Set14"):
            assert fetch_set(name, root) == root / name / "HR"
            assert np.array_equal(read_image(root / name / "HR" / "baby.png"), picture)
    assert len(server.ranges) == 1


def test_fetch_set_uses_an_archive_put_there_by_hand(server, catalogue, tmp_path):
    root = tmp_path / "sets"
    (root / "archives").mkdir(parents=True)
    (root / "archives" / "set.zip").write_bytes(server.content)
    fetch_set("Set5", root)
    assert server.ranges == []


def test_fetch_set_of_an_unknown_name_names_the_nearest(tmp_path):
    with pytest.raises(LsfdError, match="did you mean 'Urban100'"):
        fetch_set("Urban10", tmp_path)


def test_the_catalogue_is_well_formed():
    assert set(CATALOGUE) == {"DIV2K_train", "DIV2K_valid", "Set5", "Set14", "B100", "Urban100"}
    for entry in CATALOGUE.values():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", entry.archive.checksum)
        assert urlparse(entry.archive.url).scheme == "https"
        assert entry.archive.published
