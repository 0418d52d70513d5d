"""``coco``: COCO annotations: one run-length encoded mask per class ("stuff"), or one box per object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ovseg._lazy import np
from ovseg.inference.results import DetResult, SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import categories, describe, present, restore, write_json
from ovseg.inference.writers._parts import paint_runs

__all__ = ["WRITER", "detection_to_coco", "segmentation_to_coco"]


def segmentation_to_coco(result: SegResult, image_id: int = 1) -> dict[str, Any]:
    """One annotation per class in the image. Annotation ids differ between images of one vocabulary."""
    from pycocotools import mask

    areas = dict(present(result))
    annotations = [
        {
            "id": (image_id - 1) * len(result.vocabulary) + label + 1,
            "image_id": image_id,
            "category_id": label + 1,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            "area": areas[label],
            "bbox": mask.toBbox(rle).tolist(),
            "iscrowd": 0,
        }
        for label, rle in _run_lengths(result.label_map, list(areas))
    ]
    return _document(result, image_id, annotations)


def detection_to_coco(result: DetResult, image_id: int = 1) -> dict[str, Any]:
    """One annotation per object, with its score and, where there are masks, its RLE."""
    from pycocotools import mask

    annotations = []
    for i, (box, score, label) in enumerate(zip(result.boxes.tolist(), result.scores, result.labels)):
        x1, y1, x2, y2 = box
        annotation: dict[str, Any] = {
            "id": i + 1,
            "image_id": image_id,
            "category_id": int(label) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "score": float(score),
            "iscrowd": 0,
        }
        if result.masks is not None:
            rle = mask.encode(np.asfortranarray(result.masks[i], dtype=np.uint8))
            annotation["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            annotation["area"] = int(result.masks[i].sum())
        annotations.append(annotation)
    return _document(result, image_id, annotations)


def _document(
    result: SegResult | DetResult, image_id: int, annotations: list[dict[str, Any]]
) -> dict[str, Any]:
    height, width = result.size
    return {
        "info": {"description": "written by ovseg"},
        "images": [{"id": image_id, "file_name": result.source or "", "width": width, "height": height}],
        "categories": categories(result.vocabulary),
        "annotations": annotations,
    }


def _run_lengths(label_map: np.ndarray, labels: list[int]) -> list[tuple[int, dict[str, Any]]]:
    """COCO's compressed RLE of each label, all from one pass over the image."""
    from pycocotools import mask

    height, width = label_map.shape
    flat = label_map.ravel(order="F")  # COCO runs down the columns
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    encoded = []
    for label in labels:
        chosen = values == label
        edges = np.stack([starts[chosen], ends[chosen]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size).tolist()  # out, in, out, in, ..., out
        if counts[-1] == 0:  # pycocotools' own encoder ends with the last "in"
            counts.pop()
        rle = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        encoded.append((label, rle))
    return encoded


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    document = segmentation_to_coco(result)
    document["info"]["ovseg"] = describe(result)
    write_json(document, path)
    return (path,)


def _write_detections(result: DetResult, path: Path) -> tuple[Path, ...]:
    document = detection_to_coco(result)
    document["info"]["ovseg"] = describe(result)
    write_json(document, path)
    return (path,)


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
    extension=".coco.json",
    suffixes=(".json",),
    write=_write,
    read=_read,
    in_words="COCO annotations: one RLE per class, or one box per object",
    write_detections=_write_detections,
)
