"""Makes ``docs/images/emoji_scenes.png``: shipped test scenes, their true masks, and what some models find.

python tools/contact_sheet.py [MODEL ...]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import ovseg
from ovseg._files import atomic_path
from ovseg.evaluation.sets import EvaluationSet, open_set
from ovseg.inference.images import read_image
from ovseg.inference.render import overlay
from ovseg.towers.table import ASSETS

_PATH = Path(__file__).resolve().parents[1] / "docs" / "images" / "emoji_scenes.png"
_MODELS = ("maskclip_vit_tiny.emoji", "naclip_vit_tiny.emoji_pairs", "maskclip_rn_tiny.emoji")
_GROUPS = ("base", "novel", "unknown")
_SCENES = 2  # of each group
_PANEL, _GAP, _LINE = 176, 6, 18  # pixels
_COLOURS = 256  # a palette halves the file, and nobody sees it


def contact_sheet(models: Sequence[str]) -> Image.Image:
    """A row for each scene: the scene, its masks, and what each model finds when told the scene's words."""
    titles = ["scene", "truth", *models]
    width = len(titles) * (_PANEL + _GAP) + _GAP
    row = _PANEL + _LINE + _GAP
    sheet = Image.new("RGB", (width, _LINE + _GAP + len(_GROUPS) * _SCENES * row), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (_PANEL + _GAP), _GAP), title, "black", font)
    predictors = [ovseg.load(name, device="cpu") for name in models]
    top = _LINE + _GAP
    for group in _GROUPS:
        data = open_set(str(ASSETS / "emoji_test" / group))
        for index in range(_SCENES):
            panels, words = _row(data, index, predictors)
            for column, panel in enumerate(panels):
                picture = Image.fromarray(panel).resize((_PANEL, _PANEL), Image.Resampling.LANCZOS)
                sheet.paste(picture, (_GAP + column * (_PANEL + _GAP), top))
            draw.text((_GAP, top + _PANEL + 2), f"{group}: {', '.join(words)}", "black", font)
            top += row
    return sheet


def _row(
    data: EvaluationSet, index: int, predictors: Sequence[ovseg.Predictor]
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """The panels of a scene, and the words that it shows."""
    image, truth = read_image(data.image(index)), data.truth(index)
    present = sorted(set(truth[truth >= 0].tolist()))
    vocabulary = ovseg.Vocabulary.of([data.classes[k] for k in present])
    labels = np.searchsorted(present, truth)
    panels = [image, overlay(image, labels, vocabulary, alpha=0.75, legend=False)]
    for predictor in predictors:
        found = predictor.segment(image, vocabulary, background="none").label_map
        panels.append(overlay(image, found, vocabulary, alpha=0.75, legend=False))
    return panels, vocabulary.names


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"(default: {' '.join(_MODELS)})")
    args = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of words that a small tower confuses
        sheet = contact_sheet(args.models or _MODELS)
    with atomic_path(_PATH) as path:
        sheet.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, format="png", optimize=True)
    print(_PATH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
