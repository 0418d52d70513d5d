"""True boxes of images, from annotations in COCO's or LVIS's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Federated", "GroundTruth", "parse_ground_truth", "read_annotations"]


@dataclass(frozen=True)
class Federated:
    """LVIS: an image is not searched for all classes, and not for all objects of a class.

    Attributes:
        searched: Labels that were looked for: those with boxes, and those known to be absent. Detections of
            other classes are not counted.
        partial: Labels of which the image may show more than is annotated: detections that match nothing are
            not counted.
    """

    searched: frozenset[int]
    partial: frozenset[int]


@dataclass(frozen=True)
class GroundTruth:
    """The boxes of one image.

    Attributes:
        file_name: As in the annotations.
        size: (H, W) in pixels.
        boxes: (N, 4) float64 XYXY in pixels.
        labels: (N,) int64.
        image_id: As in the annotations.
        crowds: (M, 4) boxes around many objects: what lies in them is neither right nor wrong.
        crowd_labels: (M,) int64.
        federated: What the image was searched for; None for everything.
        masks: N run lengths of pycocotools, where they were asked for.
        crowd_masks: M of the crowds, likewise.
    """

    file_name: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    image_id: int = 0
    crowds: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    crowd_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    federated: Federated | None = None
    masks: tuple[Mapping[str, Any], ...] = ()
    crowd_masks: tuple[Mapping[str, Any], ...] = ()


def read_annotations(path: Path) -> dict[str, Any]:
    """An annotation file as it is.

    Raises:
        ValueError: It has not COCO's layout.
        FileNotFoundError: It does not exist.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        for part in ("images", "annotations", "categories"):
            document[part][:0]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has not COCO's layout ({type(error).__name__}: {error})") from error
    return document


def parse_ground_truth(
    document: Mapping[str, Any], names: Sequence[str], masks: bool = False
) -> Iterator[GroundTruth]:
    """All images with their boxes, in the order of the document. Boxes without area are left out.

    Args:
        document: In COCO's or LVIS's layout.
        names: The classes, in the order of the labels; boxes of other classes are left out.
        masks: Read them too, from ``segmentation``.

    Raises:
        ValueError: There is no category of one of the names.
    """
    ids = {category["name"]: category["id"] for category in document["categories"]}
    if missing := [name for name in names if name not in ids]:
        raise ValueError(f"the annotations have no category {', '.join(missing[:3])}")
    labels = {ids[name]: label for label, name in enumerate(names)}
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for item in document["annotations"]:
        if item["category_id"] in labels and item["bbox"][2] > 0 and item["bbox"][3] > 0:
            by_image.setdefault(item["image_id"], []).append(item)
    for image in document["images"]:
        items = by_image.get(image["id"], [])
        single = [item for item in items if not item.get("iscrowd")]
        boxes, own = _arrays(single, labels)
        many = [item for item in items if item.get("iscrowd")]
        crowds, crowd_labels = _arrays(many, labels)
        yield GroundTruth(
            image.get("file_name") or image["coco_url"].split("/", 3)[-1],  # LVIS gives an address
            (image["height"], image["width"]),
            boxes,
            own,
            image["id"],
            crowds,
            crowd_labels,
            _federated(image, own, labels),
            *(
                tuple(_run_lengths(item["segmentation"], image) for item in part) if masks else ()
                for part in (single, many)
            ),
        )


def _arrays(items: Sequence[Mapping[str, Any]], labels: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) XYXY and (N,) labels."""
    boxes = np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([labels[item["category_id"]] for item in items], np.int64)


def _run_lengths(segmentation: Any, image: Mapping[str, Any]) -> Mapping[str, Any]:
    """Polygons, or run lengths in either form, as compressed run lengths."""
    from pycocotools import mask as rle

    if isinstance(segmentation, Mapping) and not isinstance(segmentation["counts"], list):
        return segmentation
    coded = rle.frPyObjects(segmentation, image["height"], image["width"])
    return rle.merge(coded) if isinstance(coded, list) else coded


def _federated(image: Mapping[str, Any], own: np.ndarray, labels: Mapping[int, int]) -> Federated | None:
    if "neg_category_ids" not in image:
        return None
    absent = {labels[i] for i in image["neg_category_ids"] if i in labels}
    partial = {labels[i] for i in image.get("not_exhaustive_category_ids", ()) if i in labels}
    return Federated(frozenset(absent | set(own.tolist())), frozenset(partial))
