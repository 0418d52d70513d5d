"""``png``: the label map as an indexed picture, for evaluation tools and other programs.

Up to 255 classes: 8 bits with the vocabulary's palette, unlabelled is 255. More: 16 bits grey, unlabelled is
65535. What the indices mean stands in the file's metadata (key "ovseg") and in a JSON file beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

from ovseg._files import atomic_path
from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import describe, restore, write_json

__all__ = ["WRITER"]

_KEY = "ovseg"


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    num_classes = len(result.vocabulary)
    if num_classes > 0xFFFF:
        raise ValueError(f"{path}: png holds at most 65535 classes, got {num_classes}; use format 'npz'")
    dtype, unlabelled = (np.uint8, 0xFF) if num_classes <= 0xFF else (np.uint16, 0xFFFF)
    picture = Image.fromarray(np.where(result.label_map < 0, unlabelled, result.label_map).astype(dtype))
    if dtype is np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        palette[:num_classes] = result.vocabulary.palette
        picture.putpalette(palette.tobytes())
    description = {**describe(result), "unlabelled": unlabelled}
    metadata = PngInfo()
    metadata.add_itxt(
        _KEY, json.dumps(description)
    )  # not compressed: Pillow reads compressed text up to 1 MB
    beside = path.with_suffix(".json")
    write_json(description, beside)  # first: where the picture is, all is
    with atomic_path(path) as temporary:
        picture.save(temporary, pnginfo=metadata)
    return path, beside


def _read(path: Path) -> SegResult:
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.array(picture).astype(np.int32)
        text = picture.text.get(_KEY)  # type: ignore[attr-defined]
    if text is None:
        raise ValueError(f"{path} was not written by ovseg: it does not say what its values mean")
    description = json.loads(text)
    return restore(np.where(pixels == description["unlabelled"], -1, pixels), description)


WRITER = Writer(
    extension=".labels.png",
    suffixes=(".png",),
    write=_write,
    read=_read,
    in_words="indexed label map; names in its metadata and in a JSON file beside it",
)
