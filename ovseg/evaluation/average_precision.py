"""Average precision of boxes or masks, class by class, as COCO's and LVIS's own tools count it.

pycocotools does the matching. mmdet's ``OVCocoMetric`` gives the same figures, but knows two groups of
classes only, rounds, and returns nothing where nothing was detected. The rules of LVIS (images are searched
for some classes only; 300 detections an image among all classes) stand here, as the ``lvis`` package does not
run with numpy 2.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.evaluation.ground_truth import GroundTruth

__all__ = ["ClassPrecision", "average_precision"]

_Shape = Mapping[str, Any]  # part of an annotation of COCO


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of K classes; NaN for a class without a true box.

    Attributes:
        ap: (K,) mean over IoU 0.5, 0.55, ..., 0.95.
        ap50: (K,) at IoU 0.5.
    """

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]

    def mean(self, classes: Sequence[int] | None = None) -> dict[str, float]:
        """``ap`` and ``ap50``, averaged over those of some classes that have true boxes; NaN if none has."""
        chosen = slice(None) if classes is None else list(classes)
        out = {}
        for name, values in (("ap", self.ap[chosen]), ("ap50", self.ap50[chosen])):
            there = values[~np.isnan(values)]
            out[name] = float(there.mean()) if len(there) else float("nan")
        return out


def average_precision(
    truths: Sequence[GroundTruth],
    boxes: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    classes: int,
    limit: int = 100,
    masks: Sequence[Sequence[Mapping[str, Any]]] | None = None,
) -> ClassPrecision:
    """Average precision of each class.

    Args:
        truths: Of the images that were searched; with their masks where ``masks`` are given.
        boxes: Of each image, (M, 4) XYXY in pixels.
        scores: Of each image, (M,).
        labels: Of each image, (M,).
        classes: K.
        limit: Most detections that count, the best of an image: of each class in COCO, of all in LVIS.
        masks: Of each image, M run lengths of pycocotools: these are matched instead of the boxes.
    """
    by_class: list[dict[int, _ImageOfClass]] = [{} for _ in range(classes)]
    for index, truth in enumerate(truths):
        _add_truth(by_class, index, truth, masks is not None)
        order = np.argsort(-scores[index], kind="stable")[: None if truth.federated is None else limit]
        found = (order.tolist(), scores[index][order].tolist(), labels[index][order].tolist())
        for place, score, label in zip(*found):
            if truth.federated is None or label in truth.federated.searched:
                shape = _box(boxes[index][place]) if masks is None else _mask(masks[index][place])
                _image_of(by_class[label], index, truth, label).found.append((shape, score))
    kind = "bbox" if masks is None else "segm"
    rows = [_one_class(images.values(), limit, kind) for images in by_class]
    return ClassPrecision(np.array([ap for ap, _ in rows]), np.array([ap50 for _, ap50 in rows]))


@dataclass
class _ImageOfClass:
    """What one image has of one class."""

    index: int
    true: list[_Shape]
    crowds: list[_Shape]
    found: list[tuple[_Shape, float]]
    partial: bool


def _image_of(images: dict[int, _ImageOfClass], index: int, truth: GroundTruth, label: int) -> _ImageOfClass:
    if index not in images:
        partial = truth.federated is not None and label in truth.federated.partial
        images[index] = _ImageOfClass(index, [], [], [], partial)
    return images[index]


def _add_truth(by_class: list[dict[int, _ImageOfClass]], index: int, truth: GroundTruth, masks: bool) -> None:
    single = [_mask(mask) for mask in truth.masks] if masks else [_box(box) for box in truth.boxes]
    many = [_mask(mask) for mask in truth.crowd_masks] if masks else [_box(box) for box in truth.crowds]
    for shape, label in zip(single, truth.labels.tolist(), strict=True):
        _image_of(by_class[label], index, truth, label).true.append(shape)
    for shape, label in zip(many, truth.crowd_labels.tolist(), strict=True):
        _image_of(by_class[label], index, truth, label).crowds.append(shape)


def _box(box: np.ndarray) -> _Shape:
    x1, y1, x2, y2 = (float(value) for value in box)
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}


def _mask(mask: Mapping[str, Any]) -> _Shape:
    from pycocotools import mask as rle

    return {"segmentation": mask, "area": float(rle.area(mask))}


def _one_class(images: Iterable[_ImageOfClass], limit: int, kind: str) -> tuple[float, float]:
    """AP and AP50 of a class, from the images that show it or in which it was found."""
    from pycocotools.cocoeval import COCOeval

    images = list(images)
    if not any(image.true for image in images):
        return float("nan"), float("nan")
    true = [_entry(image.index, shape) for image in images for shape in image.true]
    true += [_entry(image.index, shape, iscrowd=1) for image in images for shape in image.crowds]
    found = [_entry(image.index, shape, score=score) for image in images for shape, score in image.found]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_table(images, true), _table(images, found), kind)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [limit]
        evaluation.evaluate()
        partial = {image.index for image in images if image.partial}
        for item in evaluation.evalImgs:
            if item is not None and item["image_id"] in partial:
                item["dtIgnore"] = item["dtIgnore"] | (item["dtMatches"] == 0)
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (IoU, recall, 1, 1, 1)
    return float(precision.mean()), float(precision[0].mean())


def _entry(image: int, shape: _Shape, **more: float) -> dict[str, Any]:
    """An annotation; ids are given by ``_table``."""
    return {"image_id": image, "category_id": 1, "iscrowd": 0, **shape, **more}


def _table(images: Iterable[_ImageOfClass], entries: Sequence[Mapping[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {
        "images": [{"id": image.index, "height": 0, "width": 0} for image in images],
        "categories": [{"id": 1}],
        "annotations": [{**entry, "id": number} for number, entry in enumerate(entries, start=1)],
    }
    made.createIndex()
    return made
