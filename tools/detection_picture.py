"""Makes ``docs/images/detections.png``: what the embedded detector finds in the first test scenes.

python tools/detection_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import ovseg
from ovseg.datasets.emoji import EmojiScenes, WordGroup, word_table

_MODEL = "region_clip_vit_tiny.emoji_boxes"
_GROUPS: tuple[WordGroup, ...] = ("base", "novel", "unknown")
_SIDE = 400  # pixels of a panel: more than the scene's 224, so that labels can be read
_COLOURS = 96
_COLUMNS, _ROWS, _GAP = 3, 2, 8


def detection_picture() -> Image.Image:
    """Scenes of the held-out artist with base, novel and unknown words, all of which are asked for."""
    predictor = ovseg.load(_MODEL)
    scenes = EmojiScenes("test", _GROUPS, length=_COLUMNS * _ROWS, seed=7)
    predictor.set_vocabulary(list(word_table().names(*_GROUPS)))
    step = _SIDE + _GAP
    picture = Image.new("RGB", (_COLUMNS * step - _GAP, _ROWS * step - _GAP), "white")
    for i, scene in enumerate(scenes):
        large = np.asarray(Image.fromarray(scene.image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        found = predictor.detect(large)
        picture.paste(
            Image.fromarray(found.overlay(legend=False)), (i % _COLUMNS * step, i // _COLUMNS * step)
        )
    return picture


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "docs" / "images" / "detections.png"
    detection_picture().quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
