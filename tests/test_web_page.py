"""The page in which a student runs: its folder, its server, and what it does in Chromium."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.message import Message
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from browser import chromium, chromium_path
from skimage import data

from lsfd.atomic import write_bytes
from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.resize import downscale, modcrop, upscale
from lsfd.inference.networks import open_network
from lsfd.inference.upscaler import Upscaler
from lsfd.networks.build import build_network
from lsfd.networks.student_file import StudentCard, save_student
from lsfd.web import build, runtime
from lsfd.web.build import build_page
from lsfd.web.runtime import LOCK, RUNTIME_FILES, runtime_folder, runtime_version
from lsfd.web.server import HEADERS, page_server, serve

SCALE = 4
EDSR = {
    "type": "EDSR",
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 8,
    "num_block": 2,
    "upscale": SCALE,
}
PAGE = Path(build.__file__).parent / "page"
TIMES = "\N{MULTIPLICATION SIGN}"
LONGEST_MS = 120_000

# The runtime and the folder, without a browser


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with random weights, large enough that its tiles have seams if they can."""
    torch.manual_seed(0)
    network = build_network(EDSR)
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.mul_(8)
    path = tmp_path_factory.mktemp("student") / "tiny.safetensors"
    card = StudentCard(
        architecture=EDSR, scale=SCALE, method="LSFD", scores={"Set5": {"psnr_y": 30.5}}
    )
    save_student(path, network, card)
    return path


@pytest.fixture
def stub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds a runtime of empty files, and no npm."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(LsfdError) as error:
        runtime_folder(cache)
    folder = Path(re.search(r"copy the folder (\S+)", str(error.value))[1])
    folder.mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / name).touch()
    return cache


def write_stub(weights: Path, path: Path) -> None:
    write_bytes(path, b"a network")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_lock_file_pins_one_version_by_checksum_and_names_no_host():
    text = (LOCK / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", runtime_version())
    assert packages["node_modules/onnxruntime-web"]["version"] == runtime_version()
    assert all("integrity" in package for name, package in packages.items() if name)
    assert "resolved" not in text and "://" not in text


def test_without_npm_one_sentence_says_what_to_do_and_nothing_is_left(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "export", write_stub)
    with pytest.raises(LsfdError, match="install Node") as error:
        build_page(student, tmp_path / "out", tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not tree(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a shell script")
@pytest.mark.parametrize("fails", [False, True])
def test_npm_is_asked_once_and_leaves_all_or_nothing(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dist = "node_modules/onnxruntime-web/dist"
    script = f"#!/bin/sh\nmkdir -p {dist}\nfor f in {' '.join(RUNTIME_FILES)} more; do\n"
    script += f'echo "$f $*" > {dist}/$f\ndone\n'
    script += 'echo "npm error code E404" >&2\nexit 1\n' if fails else ""
    npm = tmp_path / "npm"
    npm.write_text(script)
    npm.chmod(0o755)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: str(npm))
    if fails:
        with pytest.raises(LsfdError, match="E404"):
            runtime_folder(tmp_path / "cache")
        assert not tree(tmp_path / "cache")
        return
    found = tree(runtime_folder(tmp_path / "cache"))
    assert sorted(found) == sorted(RUNTIME_FILES)
    assert all(b" ci --ignore-scripts" in text for text in found.values())
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    assert tree(runtime_folder(tmp_path / "cache")) == found
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_equal_students_give_equal_folders(
    student: Path, stub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "export", write_stub)
    build_page(student, tmp_path / "one", stub_cache)
    build_page(student, tmp_path / "two", stub_cache)
    built = tree(tmp_path / "one")
    assert built == tree(tmp_path / "two")
    assert set(tree(PAGE)) | {f"runtime/{name}" for name in RUNTIME_FILES} < set(built)
    model = json.loads(built["model.json"])
    assert (model["name"], model["scale"], model["multiple"]) == ("tiny", SCALE, 1)
    assert model["card"]["scores"] == {"Set5": {"psnr_y": 30.5}}
    # 2 blocks of 2 convolutions, 3 around them, 2 to enlarge, 1 more: each sees one pixel far.
    assert 6 <= model["overlap"] == model["reach"] <= 10


def test_the_page_asks_nothing_of_other_hosts():
    for name, content in tree(PAGE).items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, name


# The server, without a browser


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an index, and a secret beside it to which a link leads."""
    folder = tmp_path / "site"
    (folder / "runtime").mkdir(parents=True)
    for name in ("index.html", "page.js", "runtime/ort.mjs", "runtime/ort.wasm", "student.onnx"):
        (folder / name).write_text(name)
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def running() -> Iterator[Callable[[ThreadingHTTPServer], ThreadingHTTPServer]]:
    """A function that runs a server until the test ends."""
    servers = []

    def run(server: ThreadingHTTPServer) -> ThreadingHTTPServer:
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def get(server: ThreadingHTTPServer, path: str) -> tuple[int, Message, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest("GET", path)  # As it is: no tidying of dots.
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_only_this_machine_is_answered(site: Path):
    with page_server(site, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.socket.family == socket.AF_INET


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/runtime/ort.mjs", "text/javascript; charset=utf-8"),
        ("/runtime/ort.wasm", "application/wasm"),
        ("/student.onnx", "application/octet-stream"),
    ],
)
def test_types_are_right_and_every_answer_has_the_headers(
    site: Path, running: Any, path: str, kind: str
):
    server = running(page_server(site, 0))
    status, headers, body = get(server, path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert body.decode() == (path[1:] or "index.html")
    missing, its_headers, _ = get(server, "/nothing")
    assert missing == 404
    for name, value in HEADERS.items():
        assert headers[name] == its_headers[name] == value


def test_the_policy_lets_the_page_reach_no_other_host():
    policy = HEADERS["Content-Security-Policy"]
    sources = {word for part in policy.split(";") for word in part.split()[1:]}
    assert sources == {"'none'", "'self'", "'wasm-unsafe-eval'"}
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/runtime/../../secret.txt",
        "//../secret.txt",
        "/..%5csecret.txt",
        "/link.txt",
        "/linked/secret.txt",
        "/runtime/",
        "/%00",
    ],
)
def test_nothing_outside_the_folder_is_shown_and_no_listing(site: Path, running: Any, path: str):
    try:
        (site / "link.txt").symlink_to(site.parent / "secret.txt")
        (site / "linked").symlink_to(site.parent)
    except OSError:
        pytest.skip("this system lets only administrators make links")
    status, _, body = get(running(page_server(site, 0)), path)
    assert status == 404
    assert b"secret" not in body and b"ort" not in body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200), ("localhost:{port}", 200), ("localhost:9000", 200),
        ("evil.example:{port}", 421), ("127.0.0.1.evil.example", 421), ("", 421), ("[", 421),
        ("localhost@evil.example", 421),
    ],
)  # fmt: skip
def test_who_asks_for_another_name_gets_nothing(site: Path, running: Any, host: str, status: int):
    server = running(page_server(site, 0))
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest("GET", "/page.js", skip_host=True)
    connection.putheader("Host", host.format(port=server.server_port))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == status
    assert (b"page.js" in answer.read()) == (status == 200)
    connection.close()


def test_a_port_that_is_taken_or_is_none_and_a_folder_without_a_page(site: Path, tmp_path: Path):
    with page_server(site, 0) as server, pytest.raises(LsfdError, match="choose another"):
        serve(site, server.server_port)
    with pytest.raises(LsfdError, match="65535"):
        page_server(site, 70000)
    with pytest.raises(LsfdError, match="no page"):
        page_server(tmp_path, 0)


# In Chromium


@pytest.fixture(scope="module")
def page_folder(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the student, with the real runtime."""
    pytest.importorskip("playwright", reason="pip install playwright")
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"pip install {package}")
    chromium_path()
    try:
        runtime_folder()
    except LsfdError as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("page")
    build_page(student, out)
    return out


@pytest.fixture(scope="module")
def browser(page_folder: Path) -> Iterator[Any]:
    with chromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader") as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, page_folder: Path, running: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens the page anew; see ``opened``."""
    with ExitStack() as stack:

        def visit(query: str = "", server: ThreadingHTTPServer | None = None) -> Any:
            server = server or running(page_server(page_folder, 0))
            return stack.enter_context(opened(browser, server, query))

        yield visit


@pytest.fixture(scope="module")
def shared_page(browser: Any, page_folder: Path) -> Iterator[Any]:
    with page_server(page_folder, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with opened(browser, server) as page:
            yield page
        server.shutdown()


@pytest.fixture
def page(shared_page: Any) -> Iterator[Any]:
    """A page that other tests use, too: starting the runtime anew takes seconds."""
    yield shared_page
    shared_page.check("#zoom [value=fit]", force=True)
    assert not shared_page.problems


@contextmanager
def opened(browser: Any, server: ThreadingHTTPServer, query: str = "") -> Iterator[Any]:
    """Open the page; it may reach no other host, and its console stays empty."""
    home = f"http://127.0.0.1:{server.server_port}/"
    problems: list[str] = []

    def only_home(route: Any) -> None:
        if route.request.url.startswith((home, "blob:")):
            route.continue_()
        else:
            problems.append(f"asks for {route.request.url}")
            route.abort()

    with browser.new_context() as context:
        context.set_default_timeout(LONGEST_MS)
        context.on("console", lambda message: problems.append(message.text))
        context.on("weberror", lambda error: problems.append(str(error.error)))
        context.route("**/*", only_home)
        page = context.new_page()
        page.problems = problems
        page.goto(home + query)
        page.wait_for_selector("body[data-ready]")
        yield page
    assert not problems


def enlarge(page: Any, path: Path) -> None:
    page.set_input_files("#file", path)
    page.get_by_text(path.name, exact=True).wait_for()
    page.wait_for_selector("body[data-state=done], #problem:not(:empty)")
    assert page.inner_text("#problem") == ""


def saved(page: Any, path: Path) -> np.ndarray:
    """What the button saves."""
    with page.expect_download() as download:
        page.click("#save")
    target = path.with_name(download.value.suggested_filename)
    download.value.save_as(target)
    assert target.name == f"{path.stem}_x{SCALE}.png"
    return np.asarray(PIL.Image.open(target))


def expected(student: Path, image: np.ndarray) -> np.ndarray:
    network, card = open_network(student)
    return Upscaler(network, card.scale, device="cpu", precision="fp32")(image)


def assert_equal_pixels(found: np.ndarray, wanted: np.ndarray, levels: int = 1) -> None:
    assert found.shape[:2] == wanted.shape[:2]
    assert np.abs(found[..., :3].astype(int) - wanted[..., :3]).max() <= levels


def photograph(folder: Path, height: int = 61, width: int = 83) -> Path:
    path = folder / "a photograph.png"
    write_image(path, np.ascontiguousarray(data.astronaut()[:height, 100 : 100 + width]))
    return path


@pytest.mark.parametrize(
    ("query", "says"), [("?engine=wasm", "WASM"), ("?engine=wasm&tile=16", "of 24 tiles")]
)
def test_pixels_equal_the_upscalers_whole_or_in_tiles(
    visit: Any, student: Path, tmp_path: Path, query: str, says: str
):
    path = photograph(tmp_path)
    page = visit(query)
    enlarge(page, path)
    wanted = expected(student, read_image(path))
    assert wanted.std() > 20  # There is something to see.
    assert says in page.inner_text("#status") + page.text_content("#count")
    assert_equal_pixels(saved(page, path), wanted)


def test_a_picture_of_set14(page: Any, student: Path, tmp_path: Path):
    folder = Path(os.environ.get("LSFD_DATA", "")) / "benchmarks" / "Set14" / "HR"
    if not (folder / "zebra.png").is_file():
        pytest.skip("set LSFD_DATA to the folder of real images (see datasets/README.md)")
    path = tmp_path / "zebra.png"
    write_image(path, downscale(modcrop(read_image(folder / path.name), SCALE), SCALE))
    enlarge(page, path)
    assert_equal_pixels(saved(page, path), expected(student, read_image(path)))


def test_webgpu_gives_the_same_pixels(visit: Any, student: Path, tmp_path: Path):
    page = visit("?engine=webgpu")
    adapter = "async () => Boolean(await navigator.gpu?.requestAdapter())"
    if not page.evaluate(adapter):
        pytest.skip("this Chromium has no WebGPU, not even an imitated one")
    path = photograph(tmp_path, 13, 17)
    enlarge(page, path)
    assert "WebGPU" in page.inner_text("#status")
    assert_equal_pixels(saved(page, path), expected(student, read_image(path)))


def test_an_imitated_webgpu_is_not_chosen(page: Any, tmp_path: Path):
    enlarge(page, photograph(tmp_path, 9, 9))
    assert "WASM" in page.inner_text("#status")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_the_benchmarks(page: Any, scale: int):
    image = np.ascontiguousarray(data.chelsea()[100:117, 200:223])
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    found = page.evaluate(
        """async ([pixels, width, height, scale]) => {
             const { enlargeBicubic } = await import("./bicubic.js");
             const picture = { data: Uint8ClampedArray.from(pixels), width, height };
             return Array.from(enlargeBicubic(picture, scale).data);
           }""",
        [rgba.ravel().tolist(), image.shape[1], image.shape[0], scale],
    )
    wanted = upscale(image, scale)
    found = np.array(found).reshape(*wanted.shape[:2], 4)
    assert_equal_pixels(found, wanted, levels=0 if scale != 3 else 1)
    assert (found[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("sides", "model"),
    [
        ((83, 61), {"overlap": 5, "multiple": 1, "tile": 16}),
        ((83, 61), {"overlap": 8, "multiple": 4, "tile": 10}),
        ((300, 7), {"overlap": 0, "multiple": 1, "tile_pixels": 500}),
        ((90, 90), {"overlap": 3, "multiple": 1, "tile_pixels": 900}),
        ((20, 20), {"overlap": 3, "multiple": 8, "tile_pixels": 900}),
    ],
)
def test_tiles_cover_each_pixel_once_and_keep_within_their_bounds(
    page: Any, sides: tuple[int, int], model: dict[str, int]
):
    tiles = page.evaluate(
        """async ([width, height, model]) =>
             (await import("./tiles.js")).planTiles(width, height, model)""",
        [*sides, model],
    )
    width, height = sides
    covered = np.zeros((height, width), int)
    for tile in tiles:
        inner, outer = tile["inner"], tile["outer"]
        x, y = inner["x"], inner["y"]
        covered[y : y + inner["height"], x : x + inner["width"]] += 1
        assert x % model["multiple"] == y % model["multiple"] == 0
        around = max(model["overlap"], 2)
        assert outer["x"] <= max(x - around, 0) and outer["y"] <= max(y - around, 0)
        assert outer["x"] + outer["width"] >= min(x + inner["width"] + around, width)
        assert outer["y"] + outer["height"] >= min(y + inner["height"] + around, height)
        if "tile" not in model:
            assert outer["width"] * outer["height"] <= model["tile_pixels"]
    assert (covered == 1).all()


def test_transparency_is_kept_and_leaves_no_fringe(page: Any, student: Path, tmp_path: Path):
    image = read_image(photograph(tmp_path, 40, 48))
    alpha = np.full((40, 48, 1), 255, np.uint8)
    alpha[:, :20] = 0
    path = tmp_path / "cut out.png"
    hidden = np.where(alpha, image, 0)
    PIL.Image.fromarray(np.dstack([hidden, alpha])).save(path)
    enlarge(page, path)
    found = saved(page, path)
    assert found.shape == (160, 192, 4)
    assert (found[:, : 17 * SCALE, 3] == 0).all() and (found[:, 23 * SCALE :, 3] == 255).all()
    # As the network makes of a picture that goes on with the colours of the edge.
    went_on = image.copy()
    went_on[:, :20] = image[:, 20:21]
    wanted = expected(student, went_on)
    edge = slice(23 * SCALE, 26 * SCALE)
    assert np.abs(found[:, edge, :3].astype(int) - wanted[:, edge]).mean() < 3
    assert "transparent" in page.get_attribute("#stage", "class")


def test_an_orientation_in_the_file_is_honoured(page: Any, tmp_path: Path):
    path = tmp_path / "turned.jpg"
    image = PIL.Image.fromarray(data.astronaut()[:20, :30])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    enlarge(page, path)
    assert page.inner_text("#sizes").split() == ["20", TIMES, "30", "→", "80", TIMES, "120"]


def test_what_is_no_picture_is_named_and_the_page_goes_on(page: Any, tmp_path: Path):
    text = tmp_path / "notes <b>.png"
    text.write_text("no picture")
    page.set_input_files("#file", text)
    page.wait_for_selector("#problem:not(:empty)")
    assert page.inner_text("#problem").startswith("notes <b>.png is no picture")
    enlarge(page, photograph(tmp_path, 9, 9))
    page.set_input_files("#file", text)
    page.wait_for_selector("#problem:not(:empty)")
    assert saved(page, photograph(tmp_path, 9, 9)).shape[:2] == (36, 36)


def test_a_picture_that_is_too_large_is_refused_with_its_size(page: Any, tmp_path: Path):
    path = tmp_path / "large.png"
    PIL.Image.new("L", (4000, 3000)).save(path)
    page.set_input_files("#file", path)
    page.wait_for_selector("#problem:not(:empty)")
    assert f"16000 {TIMES} 12000 (192 megapixels)" in page.inner_text("#problem")


def test_what_is_in_work_is_cancelled_at_once_and_the_page_goes_on(
    visit: Any, student: Path, tmp_path: Path
):
    large, small = tmp_path / "large.png", photograph(tmp_path, 20, 20)
    write_image(large, np.ascontiguousarray(data.astronaut()[:256, :256]))
    page = visit("?tile=8")

    def begin() -> None:
        page.set_input_files("#file", large)
        page.wait_for_selector("#count:not(:empty)")

    for cancel in (lambda: page.click("#cancel"), lambda: page.keyboard.press("Escape")):
        begin()
        cancel()
        page.wait_for_selector("body[data-state=stopped]")
        said = page.inner_text("#status")
        assert re.fullmatch(r"Cancelled after \d+ of 1024 tiles\.", said)
        assert not page.is_visible("#save") and not page.is_visible("#cancel")
        until = time.monotonic() + 30  # A browser takes some seconds to end a worker.
        while page.workers and time.monotonic() < until:
            page.wait_for_timeout(100)
        assert not page.workers  # Nothing works on in the background.
        assert page.inner_text("#status") == said
    begin()
    enlarge(page, small)  # Takes its place.
    assert_equal_pixels(saved(page, small), expected(student, read_image(small)))


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_dropping_and_pasting(page: Any, tmp_path: Path, way: str):
    send = """async ([way, bytes]) => {
      const transfer = new DataTransfer();
      if (bytes) transfer.items.add(new File([Uint8Array.from(bytes)], "sent.png"));
      const event = way === "drop"
        ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
      document.body.dispatchEvent(event);
    }"""
    page.evaluate(send, [way, None])
    page.wait_for_selector("#problem:not(:empty)")
    page.evaluate(send, [way, list(photograph(tmp_path, 9, 9).read_bytes())])
    # The state alone may still be that of the image before. (wait_for_function polls with eval,
    # which the page's content policy forbids.)
    page.wait_for_selector("#title:text-is('sent.png')")
    page.wait_for_selector("body[data-state=done]")
    assert page.inner_text("#problem") == ""


def test_all_of_it_by_keyboard(visit: Any):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # The example.
    page.wait_for_selector("body[data-state=done]")
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if seen[-1] == "BODY":
            break
        outline = page.evaluate(
            """() => {
                 const { activeElement } = document;
                 const shown = activeElement.name === "zoom"
                   ? activeElement.nextElementSibling : activeElement;
                 return getComputedStyle(shown).outlineStyle;
               }"""
        )
        assert outline != "none", seen
        if seen[-1] == "wipe":
            before = page.evaluate("document.getElementById('student').style.clipPath")
            page.keyboard.press("ArrowRight")
            assert page.input_value("#wipe") == "51"
            after = page.evaluate("document.getElementById('student').style.clipPath")
            assert after != before
        elif seen[-1] == "INPUT":
            page.keyboard.press("ArrowRight")
            assert page.is_checked("#zoom [value='1']")
        elif seen[-1] == "save":
            with page.expect_download() as download:
                page.keyboard.press("Enter")
            assert download.value.suggested_filename == f"astronaut_x{SCALE}.png"
    assert seen == ["save", "pane", "wipe", "INPUT", "SUMMARY", "BODY"]


def test_dragging_moves_the_line_and_a_zoomed_picture(page: Any, tmp_path: Path):
    enlarge(page, photograph(tmp_path))
    box = page.locator("#stage").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=3)
    page.mouse.up()
    assert abs(int(page.input_value("#wipe")) - 25) <= 1
    page.mouse.move(box["x"], middle)
    assert abs(int(page.input_value("#wipe")) - 25) <= 1  # Let go of.
    line = page.locator("#line").bounding_box()
    assert abs(line["x"] - (box["x"] + box["width"] / 4)) < 6
    page.check("#zoom [value='4']", force=True)
    start = page.evaluate("document.getElementById('pane').scrollLeft")
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 60, middle, steps=3)
    page.mouse.up()
    assert page.evaluate("document.getElementById('pane').scrollLeft") == start + 60
    assert abs(int(page.input_value("#wipe")) - 25) <= 1


CONTRAST = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((level) => {
      const part = level / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
  };
  const ids = ["h1", "header p", ".invitation", "label.button", "#example small", "#status",
               "#sizes", ".wipe", "#zoom :checked + span", "#save", "summary"];
  return ids.map((id) => {
    const element = document.querySelector(id);
    const pair = [luminance(getComputedStyle(element).color), luminance(ground(element))];
    return [id, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), pair[1]];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page: Any, tmp_path: Path, scheme: str):
    page.emulate_media(color_scheme=scheme)
    enlarge(page, photograph(tmp_path, 9, 9))
    found = page.evaluate(CONTRAST)
    assert not [row for row in found if row[1] < 4.5]
    assert (found[0][2] < 0.1) == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 360, 1200])
def test_nothing_sticks_out_of_a_narrow_screen(page: Any, tmp_path: Path, width: int):
    page.set_viewport_size({"width": width, "height": 700})
    enlarge(page, photograph(tmp_path, 60, 180))
    page.evaluate("document.getElementById('about').open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("#file + label", "#example", "#frame", "#wipe", "#zoom", "#save", "#about"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, name
    for name in ("#file + label", "#example", "#save", "#zoom label >> nth=0"):
        assert page.locator(name).bounding_box()["height"] >= 24, name


def test_any_web_server_will_do(visit: Any, running: Any, page_folder: Path, tmp_path: Path):
    """Without its headers there is one thread."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *message: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(page_folder))
    page = visit(server=running(ThreadingHTTPServer(("127.0.0.1", 0), handler)))
    enlarge(page, photograph(tmp_path, 9, 9))
    assert "WASM on 1 thread." in page.inner_text("#status")


def test_the_student_and_the_example_are_described(page: Any):
    page.evaluate("document.getElementById('about').open = true")
    about = page.inner_text("#about")
    for text in ("tiny", "LSFD", "Set5 30.50 dB", runtime_version(), "NASA"):
        assert text in about
