"""Several pictures of one size with titles, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovseg._files import atomic_path

__all__ = ["save_picture", "sheet"]

_PAPER, _INK = (252, 252, 252), (32, 34, 38)
_SMALLEST, _LARGEST = 256, 640  # pixels of a panel's long side


def sheet(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Lays pictures out in rows, each under its title.

    Args:
        panels: (title, (H, W, 3) uint8 RGB), all of one size, at least one.

    Returns:
        (H', W', 3) uint8 RGB. Panels are scaled so that their long side has 256 to 640 pixels.
    """
    from PIL import Image, ImageDraw

    from ovseg.inference.fonts import FontChain, shorten

    height, width = panels[0][1].shape[:2]
    long = max(height, width)
    scale = min(max(long, _SMALLEST), _LARGEST) / long
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    text = max(13, max(size) // 28)
    fonts, line, gap = FontChain(text), round(1.8 * text), text // 2
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    canvas = Image.new("RGB", (columns * (size[0] + gap) + gap, rows * (size[1] + line + gap) + gap), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (title, picture) in enumerate(panels):
        left = gap + i % columns * (size[0] + gap)
        top = gap + i // columns * (size[1] + line + gap)
        name, font = fonts.choose(title, "")
        draw.text((left, top + line / 2), shorten(name, font, size[0]), _INK, font, anchor="lm")
        method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        canvas.paste(Image.fromarray(picture).resize(size, method), (left, top + line))
    return np.asarray(canvas)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes (H, W, 3) uint8 RGB, whole or not at all.

    Raises:
        ValueError: The suffix is no picture's.
        WriteError: The file cannot be written.
    """
    from PIL import Image

    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"{path}: a picture is written to .png, .jpg or .webp files")
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
