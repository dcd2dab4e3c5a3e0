"""Captions below pictures made of pixels: broken into lines so that none is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

_FONT_SIZE = 28  # Pixels, 14 where a README shows the picture at half its width.
_LINE_HEIGHT = 36


@dataclass(frozen=True)
class Caption:
    """Lines of text in one font.

    Attributes:
        lines: what to write, in order.
        font: in which font and size.
    """

    lines: Sequence[str]
    font: ImageFont.FreeTypeFont

    @property
    def height(self) -> int:
        """Height in pixels, with the gap to the picture above."""
        return caption_height(len(self.lines))

    def draw(self, draw: ImageDraw.ImageDraw, middle: float, top: float) -> None:
        """Write the lines in black, centred on ``middle``, below ``top`` (pixels)."""
        for index, line in enumerate(self.lines):
            position = (middle, top + caption_height(index))
            draw.text(position, line, "black", self.font, anchor="ma")


def caption_height(lines: int) -> int:
    """Return the height in pixels of that many lines, with the gap to the picture above."""
    return 6 + lines * _LINE_HEIGHT


def typeset(paragraphs: Sequence[str], bold: bool, width: int) -> Caption:
    """Break paragraphs at spaces into lines at most ``width`` pixels wide.

    Only where one word alone is wider is the font made smaller.
    """
    font = _font(bold, _FONT_SIZE)
    widest = max((font.getlength(word) for text in paragraphs for word in text.split()), default=0)
    if widest > width:
        font = _font(bold, max(1, int(_FONT_SIZE * width / widest)))
    lines: list[str] = []
    for text in paragraphs:
        line = ""
        for word in text.split():
            longer = f"{line} {word}".lstrip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return Caption(lines, font)


def _font(bold: bool, size: int) -> ImageFont.FreeTypeFont:
    """Return the font that matplotlib ships, so that text looks as in the curves everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
