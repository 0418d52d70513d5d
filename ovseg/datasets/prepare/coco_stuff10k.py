"""COCO-Stuff 10k (cocostuff-10k-v1.1.zip): the folder given holds images, annotations and imageLists.

Writes annotations/{train2014,test2014}/<image>_labelTrainIds.png (0 left out, 1..171 classes) and links the
images into images/{train2014,test2014}.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from ovseg._files import atomic_path
from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.prepare.coco_stuff import NO_CLASS
from ovseg.datasets.prepare.files import LayoutError, count, need, recode, write_labels

__all__ = ["prepare"]

_TABLE = np.full(183, -1)
_TABLE[[number for number in range(183) if number not in NO_CLASS]] = np.arange(172)


def prepare(root: Path) -> list[str]:
    """Converts both splits."""
    from scipy.io import loadmat

    images, maps = need(root, "images", "annotations")
    lines = []
    for split, published in BENCHMARKS["coco_stuff10k"].counts.items():
        folder = BENCHMARKS["coco_stuff10k"].splits[split]
        (names,) = need(root, f"imageLists/{split}.txt")
        listed = names.read_text().split()
        for name in listed:
            source, labels = maps / f"{name}.mat", maps / folder / f"{name}_labelTrainIds.png"
            if not (images / f"{name}.jpg").is_file() or not source.is_file():
                raise LayoutError(f"{name}.jpg or {source} is missing though {names} lists it")
            _link(images / f"{name}.jpg", images / folder / f"{name}.jpg")
            if not labels.is_file():
                write_labels(labels, recode(loadmat(source)["S"].astype(np.int64), _TABLE, source))
        lines.append(count(f"{split} images", len(listed), published))
    return lines


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    if target.is_file():
        return
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
