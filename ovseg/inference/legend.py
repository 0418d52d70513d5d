"""The legend beside or below a picture: which colour is which class, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovseg.inference.fonts import FontChain, shorten

if TYPE_CHECKING:
    from PIL import ImageDraw

__all__ = ["LegendEntry", "add_legend"]

_PAPER, _INK, _FAINT = (252, 252, 252), (32, 34, 38), (120, 124, 130)
_MOST_ENTRIES = 60  # more are summed up in one line


@dataclass(frozen=True)
class LegendEntry:
    """One line.

    Attributes:
        name: What it says.
        fallback: What it says where no font has the letters of ``name``.
        colour: RGB of the swatch; None draws an empty one (unlabelled).
        fraction: Of the image, 0 to 1, or None to leave it out; or
        count: Number of objects.
    """

    name: str
    fallback: str
    colour: tuple[int, int, int] | None
    fraction: float | None = 0.0
    count: int | None = None

    @property
    def amount(self) -> str:
        """The count or the fraction for people: "3", "37 %", "4.2 %", "<0.1 %"."""
        if self.count is not None:
            return str(self.count)
        if self.fraction is None:
            return ""
        value = 100 * self.fraction
        if value < 0.1:
            return "<0.1 %"
        return f"{value:.1f} %" if value < 9.95 else f"{value:.0f} %"


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in pixels.

    Attributes:
        text: Size of the letters; distances follow from it.
        rows: Lines per column; entries run down the columns.
        names: Width of the names in each column.
    """

    text: int
    rows: int
    names: tuple[int, ...]

    @property
    def margin(self) -> int:
        return round(1.1 * self.text)

    @property
    def row_height(self) -> int:
        return round(1.75 * self.text)

    @property
    def swatch(self) -> int:
        return round(1.1 * self.text)

    @property
    def name_left(self) -> int:
        return self.swatch + self.text // 2

    def column_width(self, column: int) -> int:
        return self.name_left + self.names[column] + round(3.7 * self.text)

    def column_left(self, column: int) -> int:
        gap = round(1.8 * self.text)
        return self.margin + sum(self.column_width(i) + gap for i in range(column))

    @property
    def width(self) -> int:
        last = len(self.names) - 1
        return self.column_left(last) + self.column_width(last) + self.margin

    @property
    def height(self) -> int:
        return 2 * self.margin + (self.rows - 1) * self.row_height + self.swatch


def add_legend(picture: np.ndarray, entries: list[LegendEntry]) -> np.ndarray:
    """Puts a legend below a wide picture, beside a tall one.

    Args:
        picture: (H, W, 3) uint8 RGB.
        entries: In the order in which they shall stand, at least one. Past 60 the rest is summed up.

    Returns:
        uint8 RGB, the picture at its top left corner.
    """
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    text = max(13, round(0.018 * (height * width) ** 0.5))
    fonts = FontChain(text)
    entries = _shortened(entries)
    names = [fonts.choose(entry.name, entry.fallback) for entry in entries]
    lengths = _capped([round(font.getlength(name)) + 1 for name, font in names], text)
    if height > width:
        layout = _beside(lengths, text, height)
        size, corner = (width + layout.width, max(height, layout.height)), (width, 0)
    else:
        layout = _below(lengths, text, width)
        size, corner = (max(width, layout.width), height + layout.height), (0, height)
    # Pillow sees the legend alone: it would copy a large picture several times, at 4 bytes a pixel.
    panel = Image.new("RGB", (size[0] - corner[0], size[1] - corner[1]), _PAPER)
    draw = ImageDraw.Draw(panel)
    for i, (entry, (name, font)) in enumerate(zip(entries, names)):
        column, row = divmod(i, layout.rows)
        x = layout.column_left(column)
        y = layout.margin + row * layout.row_height
        _draw_swatch(draw, (x, y), entry.colour, layout)
        middle = y + layout.swatch / 2
        ink = _FAINT if entry.colour is None else _INK
        name = shorten(name, font, layout.names[column])
        draw.text((x + layout.name_left, middle), name, ink, font, anchor="lm")
        right = x + layout.column_width(column)
        draw.text((right, middle), entry.amount, _FAINT, fonts.plain, anchor="rm")
    canvas = np.empty((size[1], size[0], 3), np.uint8)
    canvas[:] = _PAPER
    canvas[:height, :width] = picture
    canvas[corner[1] :, corner[0] :] = np.asarray(panel)
    return canvas


def _shortened(entries: list[LegendEntry]) -> list[LegendEntry]:
    if len(entries) <= _MOST_ENTRIES:
        return entries
    # The unlabelled stand last and stay.
    last = entries[-1:] if entries[-1].colour is None else []
    shown = entries[: _MOST_ENTRIES - 1 - len(last)]
    rest = entries[len(shown) : len(entries) - len(last)]
    fractions = [entry.fraction for entry in rest if entry.fraction is not None]
    total = sum(fractions) if fractions else None
    counts = [entry.count for entry in rest if entry.count is not None]
    more = LegendEntry(f"{len(rest)} more", "", None, total, sum(counts) if counts else None)
    return [*shown, more, *last]


def _capped(lengths: list[int], text: int) -> list[int]:
    """Widths of the names, held down where a few long ones would cost all others their columns."""
    usual = float(np.percentile(lengths, 90))
    cap = round(min(18 * text, max(9 * text, 1.25 * usual)))
    return [min(length, cap) for length in lengths]


def _in_rows(lengths: list[int], text: int, rows: int) -> _Layout:
    columns = [lengths[start : start + rows] for start in range(0, len(lengths), rows)]
    return _Layout(text, rows, tuple(max(*column, 3 * text) for column in columns))


def _beside(lengths: list[int], text: int, height: int) -> _Layout:
    """As few columns as the height allows, evenly filled."""
    one = _Layout(text, 1, (0,))
    fitting = max(1, (height - one.height) // one.row_height + 1)
    columns = -(-len(lengths) // fitting)
    return _in_rows(lengths, text, -(-len(lengths) // columns))


def _below(lengths: list[int], text: int, width: int) -> _Layout:
    """As few rows as the width allows; where not even one column fits, it is narrowed or sticks out."""
    for rows in range(1, len(lengths) + 1):
        layout = _in_rows(lengths, text, rows)
        if layout.width <= width:
            return layout
    room = layout.names[0] - (layout.width - width)
    return _Layout(text, len(lengths), (max(room, 6 * text),))


def _draw_swatch(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], colour: tuple[int, int, int] | None, layout: _Layout
) -> None:
    x, y = place
    box = (x, y, x + layout.swatch - 1, y + layout.swatch - 1)
    line = max(1, layout.text // 14)
    border = _FAINT if colour is None else tuple(round(0.7 * channel) for channel in colour)
    draw.rounded_rectangle(box, layout.swatch // 4, fill=colour, outline=border, width=line)
