"""Cityscapes: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip.

The folder given holds leftImg8bit and gtFine. Writes gtFine/<split>/<city>/<image>_gtFine_labelTrainIds.png
beside the labelIds maps: 19 classes, 255 left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.labels import read_labels
from ovseg.datasets.prepare.files import LayoutError, count, need, recode, write_labels

__all__ = ["prepare"]

_USED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_TABLE = np.full(34, 255)
_TABLE[list(_USED)] = np.arange(len(_USED))


def prepare(root: Path) -> list[str]:
    """Converts both labelled splits."""
    lines = []
    for split, published in BENCHMARKS["cityscapes"].counts.items():
        images, maps = need(root, f"leftImg8bit/{split}", f"gtFine/{split}")
        found = sorted(images.rglob("*_leftImg8bit.png"))
        for image in found:
            stem = image.name.removesuffix("_leftImg8bit.png")
            source = maps / image.parent.name / f"{stem}_gtFine_labelIds.png"
            target = source.with_name(f"{stem}_gtFine_labelTrainIds.png")
            if target.is_file():
                continue
            if not source.is_file():
                raise LayoutError(f"{source} is missing, the labels of {image}")
            write_labels(target, recode(read_labels(source), _TABLE, source))
        lines.append(count(f"{split} images", len(found), published))
    return lines
