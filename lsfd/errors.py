"""Errors that end in one clear sentence for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lsfd.terminal import visible_line

LONGEST = 2000
"""Characters of a sentence; what strangers put into one may be of any length."""


class LsfdError(Exception):
    """A mistake that its maker can mend: the message says what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 2; any other exception is a
    bug of ours and keeps its traceback. Whatever the message holds, it is one line, without
    characters that a terminal would obey.
    """

    def __init__(self, message: object = "") -> None:
        """Make an error with a sentence for the user."""
        sentence = visible_line(str(message))
        super().__init__(sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]} ...")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint naming the valid spelling nearest to ``name``.

    ``"; did you mean 'num_feat'?"`` where one is near, otherwise ``"; valid: a, b, c"``.
    """
    names = sorted(map(str, valid))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid: {', '.join(names)}" if names else ""
