"""What strangers wrote is shown on a terminal and never obeyed."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfd.cli import main
from lsfd.errors import LONGEST, LsfdError
from lsfd.terminal import say, visible
from lsfd.training.reporter import LOGGER, log_to

CLEAR = "\x1b[2J\x1b]0;title\x07"
BACKWARDS = "photo\u202egnp.exe"
PACKAGE = Path(__file__).parent.parent / "lsfd"


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    shown = visible(text)
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in shown)
    assert not any(0x7F <= ord(sign) < 0xA0 or 0xD800 <= ord(sign) < 0xE000 for sign in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert visible(shown) == shown
    str(shown).encode()


def test_other_languages_stay() -> None:
    text = "grüße, 日本語, عربى, 🙂\n\tdone"
    assert visible(text) == text


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    sentence = str(LsfdError(f"{CLEAR}{BACKWARDS}\nlsfd: all is well{'x' * 10_000}"))
    assert sentence.startswith(r"\x1b[2J\x1b]0;title\x07photo\u202egnp.exe\nlsfd: all is well")
    assert "\n" not in sentence and len(sentence) < LONGEST + 10


def test_what_is_said_and_logged_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(CLEAR)
    log_to(tmp_path / "run.log")
    try:
        LOGGER.info("name: %s", CLEAR)
    finally:
        log_to(None)
        LOGGER.handlers.clear()
        LOGGER.propagate = True
        LOGGER.setLevel(logging.NOTSET)
    for text in (capsys.readouterr().out, (tmp_path / "run.log").read_text()):
        assert "\x1b" not in text and "\x07" not in text
        assert r"\x1b[2J" in text


def test_the_command_shows_the_names_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(tmp_path / f"{CLEAR.replace('/', '')}.pth")
    assert main(["upscale", "-i", "x.png", "-o", "y.png", "-w", weights]) == 2
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"\x1b[2J" in shown.err
    assert shown.err.count("\n") == 1


def test_everything_is_printed_through_one_place() -> None:
    # The command's own words, a number for another process, and the terminal itself.
    own = {"cli.py", "timing.py", "server.py", "terminal.py"}
    for path in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if _prints(node)]
        assert path.name in own or not calls, path


def _prints(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )
