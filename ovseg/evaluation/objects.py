"""How well a model finds the objects of scenes when it is told their words: a figure of the towers' cards.

``python -m ovseg.evaluation.objects naclip_vit_tiny.emoji_pairs --split test``
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

import numpy as np

from ovseg.evaluation.emoji import EmojiEvaluation, evaluation_scenes, ious_of_objects

if TYPE_CHECKING:
    from ovseg.datasets.emoji import Drawings
    from ovseg.inference.predictor import Predictor

__all__ = ["main", "object_ious"]


def object_ious(predictor: Predictor, drawings: Drawings, what: EmojiEvaluation) -> list[float]:
    """IoU of each object, each pixel going to one of the scene's words or a texture.

    ``evaluate_tower`` reads a tower on whole scenes; this goes through size, windows and steps of the
    predictor's protocol.

    Args:
        predictor: Its vocabulary is set anew for every scene.
        drawings: All of them.
        what: Split, words, size and number of scenes.

    Returns:
        Fractions, 0 to 1.
    """
    table = drawings.table
    ious: list[float] = []
    for scene in evaluation_scenes(drawings, what):
        predictor.set_vocabulary([*(table.words[i].name for i in scene.words), *table.textures])
        found = predictor.segment(scene.image, keep_image=False)
        ious += ious_of_objects(scene, np.asarray(found.label_map))
    return ious


def main(argv: list[str] | None = None) -> int:
    """Entry point; prints JSON and returns the exit code."""
    import ovseg
    from ovseg.datasets.emoji import Drawings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a row of `ovseg models` on an embedded tower")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=60)
    args = parser.parse_args(argv)
    what = EmojiEvaluation(args.split, scenes=args.scenes)
    ious = object_ious(ovseg.load(args.model), Drawings.load(), what)
    print(json.dumps({"model": args.model, "objects": len(ious), "object_iou": 100 * float(np.mean(ious))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
