"""Pascal VOC 2012 (VOCtrainval_11-May-2012.tar): used as it is; the folder given holds VOCdevkit/VOC2012.

Segmentation masks are indexed PNGs: 0 background, 1..20 objects, 255 left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.labels import read_labels
from ovseg.datasets.prepare.files import LayoutError, count, need, recode

__all__ = ["prepare"]

_VALUES = np.full(256, -1)
_VALUES[:21] = np.arange(21)
_VALUES[255] = 255


def prepare(root: Path) -> list[str]:
    """Checks every mask of the train and val lists."""
    lines = []
    for split in ("train", "val"):
        images, masks, names = need(
            root / "VOCdevkit/VOC2012",
            "JPEGImages",
            "SegmentationClass",
            f"ImageSets/Segmentation/{split}.txt",
        )
        listed = names.read_text().split()
        for name in listed:
            if not (images / f"{name}.jpg").is_file():
                raise LayoutError(f"{images / name}.jpg is missing though {names} lists it")
            recode(read_labels(masks / f"{name}.png"), _VALUES, masks / f"{name}.png")
        lines.append(count(f"{split} images", len(listed), BENCHMARKS["voc21"].counts[split]))
    return lines
