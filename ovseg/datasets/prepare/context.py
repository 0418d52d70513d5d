"""Pascal Context: VOCdevkit/VOC2010 (VOCtrainval_03-May-2010.tar) and the label maps of trainval.tar.gz.

The folder given holds VOCdevkit/VOC2010 with JPEGImages and ImageSets/Main, and trainval/<image>.mat. Writes
into VOCdevkit/VOC2010

* SegmentationClassContext/<image>.png: 0 background, 1..59 the frequent classes;
* SegmentationClassContext459/<image>.tif, 16 bits: classes 0..458, 65535 left out;
* ImageSets/SegmentationContext/{train,val}.txt: images of VOC's split that have labels.

Published figures count 5,104 val images. VOC's list has one more, whose labels the authors' list leaves out;
the tool says how many it found.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.prepare.files import LayoutError, count, need, recode, write_labels, write_list

__all__ = ["FREQUENT", "prepare"]

# fmt: off
FREQUENT = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115,
    144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349,
    354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on
"""Numbers of the 59 frequent classes among all, in the order of their names."""

_LARGEST = 1 << 16
_ALL = 459


def _tables() -> tuple[np.ndarray, np.ndarray]:
    frequent, every = np.zeros(_LARGEST, np.int64), np.full(_LARGEST, 65535)
    frequent[list(FREQUENT)] = np.arange(1, len(FREQUENT) + 1)
    every[1 : _ALL + 1] = np.arange(_ALL)  # labels above 459 are too rare to count
    return frequent, every


def prepare(root: Path) -> list[str]:
    """Converts the label maps of both lists."""
    from scipy.io import loadmat

    voc, mats = need(root, "VOCdevkit/VOC2010", "trainval")
    (images,) = need(voc, "JPEGImages")
    frequent, every = _tables()
    lines = []
    for split in ("train", "val"):
        (names,) = need(voc, f"ImageSets/Main/{split}.txt")
        listed = [name for name in names.read_text().split() if (mats / f"{name}.mat").is_file()]
        for name in listed:
            if not (images / f"{name}.jpg").is_file():
                raise LayoutError(f"{images / name}.jpg is missing though {names} lists it")
            source = mats / f"{name}.mat"
            paths = [
                voc / "SegmentationClassContext" / f"{name}.png",
                voc / "SegmentationClassContext459" / f"{name}.tif",
            ]
            if all(path.is_file() for path in paths):
                continue
            labels = loadmat(source)["LabelMap"].astype(np.int64)
            for path, table in zip(paths, (frequent, every)):
                write_labels(path, recode(labels, table, source))
        write_list(voc / f"ImageSets/SegmentationContext/{split}.txt", listed)
        lines.append(count(f"{split} images", len(listed), BENCHMARKS["context60"].counts[split]))
    return lines
