"""Text on a terminal: what strangers wrote is shown, never obeyed.

Names of files and runs, option values and what a file says about itself may hold control
characters: a terminal would take them for commands (clear the screen, change the title, write over
the line above) or show words in another order than they are in. All that is printed or logged goes
through here, and so does every :class:`~lsfd.errors.LsfdError`.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what changes the direction of text
    "\u2028\u2029"  # line ends that only some programs know
    "\ud800-\udfff]"  # halves of characters, which cannot be printed
)


def visible(text: str) -> str:
    """Return text with control characters as Python writes them: an escape becomes ``\\x1b``."""
    return _COMMANDS.sub(_escaped, text)


def visible_line(text: str) -> str:
    """Return text as :func:`visible` does, on one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def say(text: object, file: TextIO | None = None, end: str = "\n") -> None:
    """Print something that may hold the words of strangers.

    Args:
        text: what to print.
        file: where to; None: standard output.
        end: what to print behind it.
    """
    print(visible(str(text)), file=file or sys.stdout, end=end)


def _escaped(character: re.Match[str]) -> str:
    number = ord(character[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
