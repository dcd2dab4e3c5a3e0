"""A Chromium for tests that click."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str:
    """Return the browser's program; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium: install it (on Debian: apt install chromium)")
    return path


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Lend a browser, started with further arguments; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    # Chromium's sandbox does not work for root.
    if sys.platform == "linux" and os.geteuid() == 0:
        arguments = ("--no-sandbox", *arguments)
    path = chromium_path()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*arguments])
        yield browser
        browser.close()
