"""Regenerate results/web_page.jpg and results/report_slider.jpg: what the pages look like.

    LSFD_DATA=... python scripts/screenshots.py RUN

RUN is the folder of a finished run of x4, such as experiments/quickstart_x4_lsfd; its report is the
second picture's. The first shows edsr-s-x4 in the page of ``lsfd web``. Needs a Chromium (on
Debian: apt install chromium) and npm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from playwright.sync_api import FloatRect, Page, sync_playwright

from lsfd.atomic import scratch_folder, write_bytes
from lsfd.cli import exit_status
from lsfd.errors import LsfdError
from lsfd.evaluation.sets import find_set
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.resize import downscale, modcrop
from lsfd.training.report import report
from lsfd.web.build import build_page
from lsfd.web.server import page_server

RESULTS = Path(__file__).resolve().parent.parent / "results"
STUDENT, SCALE = "edsr-s-x4", 4
PAGE_SIZE, REPORT_SIZE = (1100, 790), (1000, 900)
"""Of the windows: width and height in pixels."""
MARGIN = 24
"""Around the slider, in pixels."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with scratch_folder() as folder:
        show_web_page(folder, arguments.output / "web_page.jpg")
        show_report(arguments.run, folder, arguments.output / "report_slider.jpg")


def show_web_page(folder: Path, picture: Path) -> None:
    """Enlarge a zebra on the page of ``lsfd web``, and take the page's picture."""
    (zebra,) = [pair.hr for pair in find_set("Set14", None, SCALE).pairs if pair.name == "zebra"]
    small = folder / "zebra.png"
    write_image(small, downscale(modcrop(read_image(zebra), SCALE), SCALE))
    build_page(STUDENT, folder / "page")
    with page_server(folder / "page", 0) as server, window(PAGE_SIZE) as page:
        Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("body[data-ready]")
        page.set_input_files("#file", small)
        page.wait_for_selector("body[data-state=done]")
        write_bytes(picture, page.screenshot(type="jpeg", quality=88))
        server.shutdown()


def show_report(run: Path, folder: Path, picture: Path) -> None:
    """Take the picture of the slider in the report of a run."""
    file = folder / "report.html"
    report([run], file, sets=["Set5"])
    with window(REPORT_SIZE) as page:
        page.goto(file.as_uri())
        page.locator('input[name="picture"]').nth(2).check(force=True)
        box = page.locator("#pictures").bounding_box()
        assert box is not None
        around: FloatRect = {
            "x": box["x"] - MARGIN, "y": box["y"] - MARGIN,
            "width": box["width"] + 2 * MARGIN, "height": box["height"] + 2 * MARGIN,
        }  # fmt: skip
        taken = page.screenshot(type="jpeg", quality=88, full_page=True, clip=around)
    write_bytes(picture, taken)


@contextmanager
def window(size: tuple[int, int]) -> Iterator[Page]:
    """Open a browser's window.

    Raises:
        LsfdError: there is no Chromium.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise LsfdError("there is no Chromium; install it (on Debian: apt install chromium)")
    # Chromium's sandbox does not work for root.
    is_root = sys.platform == "linux" and os.geteuid() == 0
    with sync_playwright() as playwright:
        width, height = size
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if is_root else []
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


if __name__ == "__main__":
    sys.exit(exit_status("screenshots", main))
