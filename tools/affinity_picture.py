"""Makes ``docs/images/clip_dinoiser.png``: what belongs to one patch, for three kinds of features.

By MaskCLIP's features, by what CLIP-DINOiser has learned, and by DINO, its teacher.

python tools/affinity_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import ovseg
from ovseg.inference.explain import Explanation, draw_explanation, explain
from ovseg.inference.images import read_image
from ovseg.inference.sheet import sheet
from ovseg.towers.table import ASSETS

_TOWER = "vit_tiny.emoji"
_SCENE, _PLACE = ASSETS / "demo" / "meadow.png", (120, 120)
_COLOURS = 160  # a palette halves the file, and nobody sees it


def affinity_picture() -> Image.Image:
    """The scene and three maps, on one sheet."""
    image = read_image(_SCENE)
    maskclip = ovseg.build("maskclip", _TOWER)
    found = {
        "MaskCLIP's features": _similarity(maskclip, image, explain(maskclip, image, *_PLACE).at),
        "CLIP-DINOiser": explain(ovseg.build("clip_dinoiser", _TOWER), image, *_PLACE),
        "DINO, the teacher": explain(ovseg.build("dinoclip", _TOWER), image, *_PLACE),
    }
    panels = [(title, draw_explanation(image, explanation)) for title, explanation in found.items()]
    return Image.fromarray(sheet([(_SCENE.name, image), *panels]))


def _similarity(predictor: ovseg.Predictor, image: np.ndarray, at: tuple[int, int]) -> Explanation:
    """MaskCLIP attends to the patch itself alone, so that its features are shown."""
    features = predictor.features(image).patches[0].float()
    unit = features / features.norm(dim=0)
    return Explanation((unit[:, at[0], at[1], None, None] * unit).sum(dim=0).numpy(), at, "similarity")


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "docs" / "images" / "clip_dinoiser.png"
    affinity_picture().quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
