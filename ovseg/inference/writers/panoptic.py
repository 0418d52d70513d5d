"""``panoptic``: COCO's panoptic format, a PNG of segment ids and a JSON file beside it.

A segmentation has no instances: each class in the image is one segment ("stuff"), its id is the category's.
"""

from __future__ import annotations

import json
from pathlib import Path

from ovseg._files import atomic_path
from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import categories, describe, present, restore, write_json

__all__ = ["WRITER"]


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    from PIL import Image

    ids = (result.label_map + 1).astype("<i4")  # 0 is COCO's "unlabelled"
    pixels = ids.view(np.uint8).reshape(*ids.shape, 4)[..., :3]  # id = R + 256 G + 65536 B
    beside = path.with_suffix(".json")
    write_json(_document(result, path.name), beside)  # first: where the picture is, all is
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)
    return path, beside


def _document(result: SegResult, file_name: str) -> dict[str, object]:
    height, width = result.size
    segments = [
        {"id": label + 1, "category_id": label + 1, "area": area, "bbox": box, "iscrowd": 0}
        for (label, area), box in zip(present(result), _boxes(result))
    ]
    return {
        "info": {"description": "written by ovseg", "ovseg": describe(result)},
        "images": [{"id": 1, "file_name": result.source or "", "width": width, "height": height}],
        "categories": categories(result.vocabulary),
        "annotations": [{"image_id": 1, "file_name": file_name, "segments_info": segments}],
    }


def _boxes(result: SegResult) -> list[list[int]]:
    """XYWH of each class in the image, in the order of ``present``."""
    from scipy.ndimage import find_objects

    slices = find_objects(result.label_map + 1)
    boxes = [(rows, columns) for rows, columns in filter(None, slices)]
    return [[c.start, r.start, c.stop - c.start, r.stop - r.start] for r, c in boxes]


def _read(path: Path) -> SegResult:
    from PIL import Image

    document = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    description = document.get("info", {}).get("ovseg")
    if description is None:
        raise ValueError(f"{path} was not written by ovseg: info.ovseg is missing in the JSON file beside it")
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB")).astype(np.int32)
    ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
    label_map = np.full(ids.shape, -1, np.int32)
    for segment in document["annotations"][0]["segments_info"]:
        label_map[ids == segment["id"]] = segment["category_id"] - 1
    return restore(label_map, description)


WRITER = Writer(
    extension=".panoptic.png",
    suffixes=(".png",),
    write=_write,
    read=_read,
    in_words="COCO panoptic: a PNG of segment ids and a JSON file beside it",
)
