"""Makes the pictures of CAT-Seg's page: ``docs/images/cat_seg.png`` and ``docs/images/cat_seg_cost.png``.

Shipped scenes of words that the head was trained on, that only the tower knows, and that neither does; and
the cost volume of one word before and after its aggregation.

python tools/cat_seg_picture.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from contact_sheet import contact_sheet
from PIL import Image

import ovseg
from ovseg.evaluation.sets import open_set
from ovseg.inference.images import read_image
from ovseg.inference.sheet import sheet
from ovseg.methods.cat_seg.aggregator import cost_volume
from ovseg.towers.table import ASSETS

_MODEL = "cat_seg_vit_tiny.emoji"
_FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
_SCENE, _WORD = 1, "corn"
_COLOURS = 200  # a palette halves the file, and nobody sees it


@torch.inference_mode()
def cost_picture() -> Image.Image:
    """A scene, where a word is, its cosines, and the logits that the head makes of them."""
    data, predictor = open_set(str(ASSETS / "emoji_test" / "base")), ovseg.load(_MODEL, device="cpu")
    image, truth = read_image(data.image(_SCENE)), data.truth(_SCENE)
    words = [data.classes[k] for k in sorted(set(truth[truth >= 0].tolist()))]
    rows, features = predictor.bank(words).bank.rows, predictor.features(image)
    at, mask = words.index(_WORD), torch.from_numpy(truth == data.classes.index(_WORD)).float()
    before = cost_volume(features.patches, rows)[0, at, 0]
    after = predictor.model.head(features, rows)[0, at]
    maps = {f"{_WORD}: truth": mask, "cosines": before, "aggregated": after}
    size = image.shape[1::-1]
    return Image.fromarray(sheet([("scene", image), *((title, _heat(maps[title], size)) for title in maps)]))


def _heat(values: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """(h, w) as colours from the least to the greatest value, enlarged to (width, height)."""
    low, high = values.min(), values.max()
    shades = ((values - low) / (high - low) * 255).byte().numpy()
    shades = cv2.resize(shades, size, interpolation=cv2.INTER_NEAREST)
    return cv2.applyColorMap(shades, cv2.COLORMAP_INFERNO)[..., ::-1]


if __name__ == "__main__":
    scenes = contact_sheet(["maskclip_vit_tiny.emoji", _MODEL])
    for name, picture in (("cat_seg", scenes), ("cat_seg_cost", cost_picture())):
        small = picture.quantize(_COLOURS, dither=Image.Dither.NONE)
        small.save(_FOLDER / f"{name}.png", optimize=True)
