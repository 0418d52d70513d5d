"""ADE20K with 150 classes (ADEChallengeData2016.zip): used as it is.

The folder given is ADEChallengeData2016. Label maps are PNGs: 0 left out, 1..150 classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.labels import read_labels
from ovseg.datasets.prepare.files import LayoutError, count, need, recode

__all__ = ["prepare"]


def prepare(root: Path) -> list[str]:
    """Checks that every image has labels, and the labels of the validation split."""
    lines = []
    for split, published in BENCHMARKS["ade150"].counts.items():
        folder = BENCHMARKS["ade150"].splits[split]
        images, labels = need(root, f"images/{folder}", f"annotations/{folder}")
        found = sorted(images.glob("*.jpg"))
        for image in found:
            path = labels / f"{image.stem}.png"
            if not path.is_file():
                raise LayoutError(f"{path} is missing, the labels of {image}")
            if split == "val":
                recode(read_labels(path), np.arange(151), path)
        lines.append(count(f"{split} images", len(found), published))
    return lines
