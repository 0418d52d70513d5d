"""COCO-Stuff 164k and COCO-Object: train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip.

The folder given holds images/{train2017,val2017}/<image>.jpg and annotations/{train2017,val2017}/<image>.png.
Writes beside each map

* <image>_labelTrainIds.png: 171 classes, 255 left out;
* <image>_instanceTrainIds.png (COCO-Object): 0 background, 1..80 things. Stuff and unlabelled pixels (255)
  are background; no pixel is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.labels import read_labels
from ovseg.datasets.prepare.files import LayoutError, count, need, recode, write_labels

__all__ = ["NO_CLASS", "prepare"]

NO_CLASS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""COCO's category numbers (from 1) that no pixel has."""

_LAST, _LAST_THING = 182, 90


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """By stored number (category - 1): the class among 171, and among COCO-Object's 81."""
    used = [number - 1 for number in range(1, _LAST + 1) if number not in NO_CLASS]
    stuff = np.full(256, -1)
    stuff[used], stuff[255] = np.arange(len(used)), 255
    objects = np.where((stuff >= 0) & (np.arange(256) < _LAST_THING), stuff + 1, np.minimum(stuff, 0))
    return stuff, objects


def prepare(root: Path) -> list[str]:
    """Converts both splits."""
    lines = []
    for split, published in BENCHMARKS["coco_stuff171"].counts.items():
        folder = BENCHMARKS["coco_stuff171"].splits[split]
        images, maps = need(root, f"images/{folder}", f"annotations/{folder}")
        found = sorted(images.glob("*.jpg"))
        for image in found:
            _convert(maps / f"{image.stem}.png")
        lines.append(count(f"{split} images", len(found), published))
    return lines


def _convert(source: Path) -> None:
    paths = [source.with_name(f"{source.stem}_{kind}TrainIds.png") for kind in ("label", "instance")]
    if all(path.is_file() for path in paths):
        return
    if not source.is_file():
        raise LayoutError(f"{source} is missing; unpack stuffthingmaps_trainval2017.zip into annotations")
    labels = read_labels(source)
    for path, table in zip(paths, _tables()):
        write_labels(path, recode(labels, table, source))
