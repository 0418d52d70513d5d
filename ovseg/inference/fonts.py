"""Fonts for legends, without a font file of our own."""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["FontChain", "shorten"]

# Pillow looks these up in the system's font folders. The first that has the letters is taken.
_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",  # Linux
    "NotoSansSC-Regular.otf",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "PingFang.ttc",  # macOS
    "Arial Unicode.ttf",
    "msyh.ttc",  # Windows
    "msgothic.ttc",
    "malgun.ttf",
    "Nirmala.ttc",
    "seguisym.ttf",
)


class FontChain:
    """Draws any name in the first font that has all its letters.

    Pillow's own font (Latin), DejaVu Sans (Greek, Cyrillic, Arabic ...; comes with matplotlib, on which the
    OpenMMLab packages depend), then what the system has.

    Attributes:
        plain: Pillow's own font.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.plain = _load_plain(size)

    def choose(self, name: str, fallback: str) -> tuple[str, FreeTypeFont]:
        """What to draw for ``name`` and in which font.

        A letter that no font has becomes "?"; where that is more than half of them, ``fallback`` is drawn.
        """
        text = "".join(c for c in unicodedata.normalize("NFC", name) if c.isprintable())
        best, fewest = self.plain, len(text)
        for font in self._fonts():
            missing = sum(not _has(font, letter) for letter in text)
            if missing < fewest:
                best, fewest = font, missing
            if not missing:
                return text, font
        if 2 * fewest > len(text):
            return fallback, self.plain
        return "".join(letter if _has(best, letter) else "?" for letter in text), best

    def _fonts(self) -> Iterator[FreeTypeFont]:
        yield self.plain
        for name in (_dejavu(), *_SYSTEM_FONTS):
            font = _load(name, self._size)
            if font is not None:
                yield font


def shorten(text: str, font: FreeTypeFont, width: int) -> str:
    """``text``, cut to ``width`` pixels with an ellipsis where it is longer."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # the longest start that fits, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


@functools.cache
def _load_plain(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]


@functools.cache
def _load(name: str, size: int) -> FreeTypeFont | None:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def _dejavu() -> str:
    spec = importlib.util.find_spec("matplotlib")  # finds it without importing it
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    return str(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


@functools.cache
def _basic(font: FreeTypeFont) -> FreeTypeFont:
    """The font without complex layout, which would put a circle under a lone vowel sign."""
    from PIL.ImageFont import Layout

    return font.font_variant(layout_engine=Layout.BASIC)


@functools.cache
def _has(font: FreeTypeFont, letter: str) -> bool:
    """Whether the font draws the letter, and not its box for what it lacks (which it has for U+FFFF)."""
    if letter == " ":
        return True
    font = _basic(font)
    mask, nothing = font.getmask(letter), font.getmask("\uffff")
    return mask.size != nothing.size or bytes(mask) != bytes(nothing)
