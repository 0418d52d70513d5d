"""Makes the picture of the README, ``docs/images/demo.png``: the demo scenes beside their overlays.

python tools/demo_picture.py
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

import ovseg
from ovseg.cli.options import EMBEDDED_MODEL
from ovseg.towers.table import ASSETS

_COLOURS = 256  # a palette halves the file, and nobody sees it
_GAP = 8  # pixels


def demo_picture() -> Image.Image:
    """A row for each scene: the scene, its overlay."""
    predictor = ovseg.load(EMBEDDED_MODEL)
    rows = []
    for scene in json.loads((ASSETS / "demo" / "scenes.json").read_text(encoding="utf-8")):
        result = predictor.segment(ASSETS / "demo" / scene["file"], scene["classes"])
        rows.append(_joined([Image.fromarray(result.image), Image.fromarray(result.overlay())], (1, 0)))
    return _joined(rows, (0, 1))


def _joined(panels: list[Image.Image], step: tuple[int, int]) -> Image.Image:
    """Panels one after the other to the right, step (1, 0), or downwards, step (0, 1), on white."""
    places, x, y = [], 0, 0
    for panel in panels:
        places.append((x, y))
        x, y = x + step[0] * (panel.width + _GAP), y + step[1] * (panel.height + _GAP)
    width = max(left + panel.width for (left, _), panel in zip(places, panels))
    height = max(top + panel.height for (_, top), panel in zip(places, panels))
    picture = Image.new("RGB", (width, height), "white")
    for panel, place in zip(panels, places):
        picture.paste(panel, place)
    return picture


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "docs" / "images" / "demo.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    demo_picture().quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
