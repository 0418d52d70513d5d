"""Classification of ground-truth boxes: how well regions are told apart, without any localisation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["BoxTopK", "GroundTruth", "evaluate_boxes", "read_ground_truth"]


def evaluate_boxes(
    predictor: Predictor,
    annotations: Path,
    images: Path,
    vocabulary: Vocabulary,
    ks: tuple[int, ...] = (1, 5),
) -> dict[str, float]:
    """Classifies every ground-truth box of a data set.

    Args:
        predictor: Any.
        annotations: In COCO's or LVIS's layout.
        images: Folder of the images.
        vocabulary: The classes; their names are those of the annotations.
        ks: Values of k.

    Returns:
        As ``BoxTopK.compute``, and ``boxes`` and ``images``, how many there were.

    Raises:
        ValueError: The annotations do not fit the classes, or an image cannot be read.
    """
    metric, boxes, count = BoxTopK(len(vocabulary), ks), 0, 0
    for truth in read_ground_truth(annotations, vocabulary.names):
        metric.update(predictor.classify(images / truth.file_name, truth.boxes, vocabulary), truth.labels)
        boxes, count = boxes + len(truth.labels), count + 1
    return {**metric.compute(), "boxes": boxes, "images": count}


@dataclass
class BoxTopK:
    """Top-k accuracy over boxes, averaged two ways; papers report either, and they differ.

    Attributes:
        classes: K.
        ks: Values of k.
    """

    classes: int
    ks: tuple[int, ...] = (1, 5)
    _right: np.ndarray = field(init=False, repr=False)
    _count: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._right = np.zeros((len(self.ks), self.classes), np.int64)
        self._count = np.zeros(self.classes, np.int64)

    def update(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Adds boxes.

        Args:
            scores: (N, K). Of equal scores the earlier class counts as the better one.
            labels: (N,) true classes.

        Raises:
            ValueError: The shapes do not fit.
        """
        if scores.shape != (len(labels), self.classes):
            raise ValueError(
                f"scores {scores.shape} do not fit {len(labels)} boxes and {self.classes} classes"
            )
        order = np.argsort(-scores, axis=1, kind="stable")
        rank = (order == labels[:, None]).argmax(axis=1)
        np.add.at(self._count, labels, 1)
        for row, k in zip(self._right, self.ks):
            np.add.at(row, labels[rank < k], 1)

    def compute(self) -> dict[str, float]:
        """``top1_macro`` (mean over classes that occur: CLIPSelf), ``top1_micro`` (over boxes: FG-CLIP), ...

        NaN without boxes.
        """
        there = self._count > 0
        out = {}
        for k, right in zip(self.ks, self._right):
            shares = right[there] / self._count[there]
            out[f"top{k}_macro"] = float(shares.mean()) if there.any() else float("nan")
            out[f"top{k}_micro"] = float(right.sum() / self._count.sum()) if there.any() else float("nan")
        return out


@dataclass(frozen=True)
class GroundTruth:
    """The boxes of one image.

    Attributes:
        file_name: As in the annotations.
        size: (H, W) in pixels.
        boxes: (N, 4) float32 XYXY.
        labels: (N,) int64.
    """

    file_name: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray


def read_ground_truth(path: Path, names: Sequence[str]) -> Iterator[GroundTruth]:
    """Images with their boxes from annotations in COCO's (or LVIS's) layout.

    Crowds and boxes without area are left out, and images without any box.

    Args:
        path: ``instances_val2017.json`` or alike.
        names: The classes, in the order of the labels.

    Raises:
        ValueError: It is no such file, or has no category of one of the names.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        ids = {category["name"]: category["id"] for category in document["categories"]}
        images = {image["id"]: image for image in document["images"]}
        annotations = document["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has not COCO's layout ({type(error).__name__}: {error})") from error
    if missing := [name for name in names if name not in ids]:
        raise ValueError(f"{path} has no category {', '.join(missing[:3])}")
    labels = {ids[name]: label for label, name in enumerate(names)}
    found: dict[int, list[tuple[list[float], int]]] = {}
    for item in annotations:
        x, y, width, height = item["bbox"]
        if item["category_id"] in labels and not item.get("iscrowd") and width > 0 and height > 0:
            box = [x, y, x + width, y + height]
            found.setdefault(item["image_id"], []).append((box, labels[item["category_id"]]))
    for key, boxes in found.items():
        image = images[key]
        name = image.get("file_name") or image["coco_url"].split("/", 3)[-1]  # LVIS gives an address
        yield GroundTruth(
            name,
            (image["height"], image["width"]),
            np.array([box for box, _ in boxes], np.float32),
            np.array([label for _, label in boxes], np.int64),
        )
