"""ADE20K with 847 classes (ADE20K_2021_17_01.zip): the folder given is ADE20K_2021_17_01.

Writes images_detectron2/{training,validation}/<image>.jpg, whose short side is at most 512 pixels, and
annotations_detectron2/.../<image>.tif of the same size, 16 bits: classes 0..846, 65535 left out. The folders
are those of the common conversion for detectron2, which can be used in its place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg._files import atomic_path
from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.prepare.ade_full_ids import IDS
from ovseg.datasets.prepare.files import LayoutError, count, need, write_labels

__all__ = ["prepare"]

_SHORT = 512
_OBJECTS = 26 * 256  # numbers that the two colour channels can hold


def _table() -> NDArray[np.int64]:
    table = np.full(_OBJECTS, 65535)
    table[list(IDS)] = np.arange(len(IDS))
    return table


def prepare(root: Path) -> list[str]:
    """Converts both splits."""
    table, lines = _table(), []
    for split, published in BENCHMARKS["ade847"].counts.items():
        folder = BENCHMARKS["ade847"].splits[split]
        (source,) = need(root, f"images/ADE/{folder}")
        images = sorted(source.rglob("*.jpg"))
        for image in images:
            out = root / "images_detectron2" / folder / image.name
            labels = root / "annotations_detectron2" / folder / f"{image.stem}.tif"
            if not (out.is_file() and labels.is_file()):
                _convert(image, out, labels, table)
        lines.append(count(f"{split} images", len(images), published))
    return lines


def _convert(image: Path, out: Path, labels: Path, table: NDArray[np.int64]) -> None:
    import cv2

    parts = image.with_name(f"{image.stem}_seg.png")
    if not parts.is_file():
        raise LayoutError(f"{parts} is missing, the labels of {image}")
    with Image.open(image) as file:
        pixels = np.asarray(file.convert("RGB"))
    with Image.open(parts) as file:
        colours = np.asarray(file.convert("RGB")).astype(np.int64)
    classes = table[colours[..., 0] // 10 * 256 + colours[..., 1]].astype(np.uint16)
    height, width = pixels.shape[:2]
    if (shrink := _SHORT / min(height, width)) < 1:
        size = (round(width * shrink), round(height * shrink))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        classes = cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    with atomic_path(out) as path:
        Image.fromarray(pixels).save(path, quality=95)
    write_labels(labels, classes)
