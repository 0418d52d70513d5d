"""``labelme``: polygons that LabelMe opens and edits.

Holes of a polygon are covered by what lies in them, as LabelMe's own exports paint it: shapes come in the
order of their size. Enclosed pixels without a label are polygons of LabelMe's "_background_".
"""

from __future__ import annotations

import json
from pathlib import Path

from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import describe, restore, write_json
from ovseg.inference.writers._parts import paint, polygons

__all__ = ["WRITER"]

_NOTHING = "_background_"


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    names = result.vocabulary.names
    if _NOTHING in names:
        raise ValueError(f"{path}: {_NOTHING!r} means 'nothing' to LabelMe; rename that class")
    shapes = [
        {
            "label": names[label] if label >= 0 else _NOTHING,
            "points": points.astype(float).tolist(),
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for label, points in polygons(result.label_map)
    ]
    height, width = result.size
    document = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(result.source).name if result.source else "",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        "ovseg": describe(result),
    }
    write_json(document, path)
    return (path,)


def _read(path: Path) -> SegResult:
    document = json.loads(path.read_text(encoding="utf-8"))
    description = document.get("ovseg")
    if description is None:
        raise ValueError(f"{path} was not written by ovseg: its key 'ovseg' is missing")
    index = {item["name"]: i for i, item in enumerate(description["vocabulary"]["classes"])}
    outlines = [
        (index.get(shape["label"], -1), np.rint(np.array(shape["points"]))) for shape in document["shapes"]
    ]
    return restore(paint(outlines, (document["imageHeight"], document["imageWidth"])), description)


WRITER = Writer(
    extension=".labelme.json",
    suffixes=(".json",),
    write=_write,
    read=_read,
    in_words="polygons for LabelMe",
)
