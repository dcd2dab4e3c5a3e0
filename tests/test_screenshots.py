"""scripts/screenshots.py: its window, and what it says without a browser."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from browser import chromium_path

from lsfd.errors import LsfdError
from lsfd.imaging.files import read_image

pytest.importorskip("playwright", reason="pip install playwright")
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import screenshots


def test_without_a_browser_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(LsfdError, match="install it"), screenshots.window((100, 100)):
        pass


def test_a_window_is_as_large_as_asked(tmp_path: Path) -> None:
    chromium_path()
    with screenshots.window((320, 200)) as page:
        page.set_content("<body style='background: rgb(0, 128, 0)'>")
        page.screenshot(path=tmp_path / "page.png")
    image = read_image(tmp_path / "page.png")
    assert image.shape[:2] == (200, 320)
    assert tuple(image[100, 160, :3]) == (0, 128, 0)
