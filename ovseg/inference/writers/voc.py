"""``voc``: a PNG as in Pascal VOC's SegmentationClass: 0 is background, classes count from 1, VOC's colours.

``labelmap.txt`` beside it has names and colours, as CVAT reads them.
"""

from __future__ import annotations

import json
from pathlib import Path

from ovseg._files import atomic_path
from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import describe, restore

__all__ = ["WRITER"]

_KEY = "ovseg"
_MOST = 254  # 255 is VOC's "void", which a prediction has none of


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if len(result.vocabulary) > _MOST:
        raise ValueError(
            f"{path}: voc holds at most {_MOST} classes, got {len(result.vocabulary)}; use 'png'"
        )
    colours = _colours()
    picture = Image.fromarray((result.label_map + 1).astype(np.uint8))
    picture.putpalette(colours.tobytes())
    metadata = PngInfo()
    metadata.add_itxt(_KEY, json.dumps(describe(result)))
    beside = path.with_name("labelmap.txt")
    lines = ["# label:color_rgb:parts:actions"]
    for name, colour in zip(("background", *result.vocabulary.names), colours.tolist()):
        lines.append(f"{name}:{','.join(map(str, colour))}::")
    with atomic_path(path) as temporary:
        picture.save(temporary, pnginfo=metadata)
    with atomic_path(beside) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, beside


def _colours() -> np.ndarray:
    """(256, 3) uint8, VOC's: the bits of the index, in turn to red, green and blue, the highest first."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def _read(path: Path) -> SegResult:
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.array(picture).astype(np.int32)
        text = picture.text.get(_KEY)  # type: ignore[attr-defined]
    if text is None:
        raise ValueError(f"{path} was not written by ovseg: it does not say what its values mean")
    return restore(pixels - 1, json.loads(text))


WRITER = Writer(
    extension=".voc.png",
    suffixes=(".png",),
    write=_write,
    read=_read,
    in_words="Pascal VOC: 0 is background, classes from 1, and labelmap.txt",
)
