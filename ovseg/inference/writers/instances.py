"""``instances``: COCO annotations with one RLE per connected part of a class.

A segmentation has no instances of its own: touching objects of one class are one part.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import categories, describe, restore, write_json
from ovseg.inference.writers._parts import Part, paint_runs, parts

__all__ = ["WRITER"]


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    height, width = result.size
    found = [part for part in parts(result.label_map) if part.label >= 0]
    document = {
        "info": {"description": "written by ovseg", "ovseg": describe(result)},
        "images": [{"id": 1, "file_name": result.source or "", "width": width, "height": height}],
        "categories": [{**category, "isthing": 1} for category in categories(result.vocabulary)],
        "annotations": [_annotation(part, i, result.size) for i, part in enumerate(found, start=1)],
    }
    write_json(document, path)
    return (path,)


def _annotation(part: Part, number: int, size: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask

    height, width = part.mask.shape
    rle = mask.frPyObjects({"size": list(size), "counts": _counts(part, size)}, *size)
    return {
        "id": number,
        "image_id": 1,
        "category_id": part.label + 1,
        "segmentation": {"size": list(size), "counts": rle["counts"].decode("ascii")},
        "area": int(part.mask.sum()),
        "bbox": [part.left, part.top, width, height],
        "iscrowd": 0,
    }


def _counts(part: Part, size: tuple[int, int]) -> list[int]:
    """COCO's run lengths down the columns, from the bounding box alone: pictures may have many parts."""
    padded = np.pad(part.mask, ((1, 1), (0, 0))).astype(np.int8)
    columns, rows = np.nonzero(np.diff(padded, axis=0).T)  # each run's start and end, column by column
    edges = (part.left + columns) * size[0] + part.top + rows
    counts = np.diff(edges, prepend=0, append=size[0] * size[1])
    touching = np.flatnonzero(counts[1:-1] == 0) + 1  # a run goes on at the top of the next column
    for place in touching[::-1].tolist():
        counts = np.concatenate(
            [counts[: place - 1], [counts[place - 1] + counts[place + 1]], counts[place + 2 :]]
        )
    return counts.tolist()


def _read(path: Path) -> SegResult:
    document = json.loads(path.read_text(encoding="utf-8"))
    description = document.get("info", {}).get("ovseg")
    if description is None:
        raise ValueError(f"{path} was not written by ovseg: info.ovseg is missing")
    image = document["images"][0]
    masks = ((a["category_id"] - 1, a["segmentation"]["counts"]) for a in document["annotations"])
    label_map = paint_runs(masks, (image["height"], image["width"]))
    return restore(label_map, description)


WRITER = Writer(
    extension=".instances.json",
    suffixes=(".json",),
    write=_write,
    read=_read,
    in_words="COCO annotations: one RLE per connected part",
)
