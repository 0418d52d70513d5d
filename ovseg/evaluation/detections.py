"""Runs a detector over images and keeps what it finds: interruptible, in one process or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ovseg.evaluation.average_precision import ClassPrecision, average_precision
from ovseg.evaluation.box_sets import BoxSet
from ovseg.evaluation.boxes import BoxTopK
from ovseg.evaluation.ground_truth import GroundTruth
from ovseg.evaluation.loop import Loop, spread
from ovseg.inference.images import read_image

__all__ = ["BoxRecord", "Detect", "DetectionEvaluation", "Found", "evaluate_detections"]


class Boxes(Protocol):
    """What a detector returns, e.g. a ``DetResult``: boxes (M, 4) XYXY in pixels of the image, scores (M,),
    labels (M,) of the data set's vocabulary."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass
class Found:
    """Detections, and how well the true boxes were named.

    Attributes:
        boxes: (M, 4) XYXY in pixels of the image.
        scores: (M,).
        labels: (M,).
        ranks: (N,) of the true class in each true box, 0 being the best; None where they were not given.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray | None = None


Detect = Callable[[np.ndarray, GroundTruth], Boxes]
"""A detector: from an image (H, W, 3) uint8 RGB to what it finds. The truth is for those that are given the
boxes, or look up by ``image_id`` what was found before; others pass over it."""


@dataclass(frozen=True)
class BoxRecord:
    """What was found in one image, or why it was left out.

    Attributes:
        index: In the data set.
        name: Of the image.
        found: Boxes to a thousandth of a pixel; None if the image was left out.
        seconds: From the decoded image to its detections.
        error: Why the image was left out.
    """

    index: int
    name: str
    found: Found | None = None
    seconds: float = 0.0
    error: str | None = None

    @classmethod
    def of(cls, index: int, name: str, found: Boxes, seconds: float) -> BoxRecord:
        """Of what a detector returned, rounded as it is stored."""
        ranks = getattr(found, "ranks", None)
        kept = Found(
            np.asarray(found.boxes, np.float64).reshape(-1, 4).round(3),
            np.asarray(found.scores, np.float32).astype(np.float64),
            np.asarray(found.labels, np.int64),
            None if ranks is None else np.asarray(ranks, np.int64),
        )
        return cls(index, name, kept, seconds)

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON."""
        if self.found is None:
            return {"index": self.index, "name": self.name, "error": self.error}
        ranks = self.found.ranks
        return {
            "index": self.index,
            "name": self.name,
            "seconds": round(self.seconds, 4),
            "boxes": self.found.boxes.tolist(),
            "scores": [float(f"{score:.9g}") for score in self.found.scores],  # all of float32
            "labels": self.found.labels.tolist(),
            "ranks": None if ranks is None else ranks.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BoxRecord:
        """Inverse of ``to_dict``."""
        if "error" in data:
            return cls(data["index"], data["name"], error=data["error"])
        ranks = data["ranks"]
        found = Found(
            np.array(data["boxes"], np.float64).reshape(-1, 4),
            np.array(data["scores"], np.float32).astype(np.float64),
            np.array(data["labels"], np.int64),
            None if ranks is None else np.array(ranks, np.int64),
        )
        return cls(data["index"], data["name"], found, data["seconds"])


@dataclass(frozen=True)
class DetectionEvaluation:
    """What was found in all images, and what it is worth.

    Attributes:
        settings: What was evaluated.
        records: One for each image, by index; images that failed have an ``error``.
        precision: Of each class, over the images that did not fail.
        top_k: Over the true boxes; None where the detector was not given them.
        counts: (K,) true boxes of each class.
    """

    settings: Mapping[str, Any]
    records: Sequence[BoxRecord]
    precision: ClassPrecision
    top_k: BoxTopK | None
    counts: np.ndarray = field(repr=False)

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], records: Sequence[BoxRecord], data: BoxSet
    ) -> DetectionEvaluation:
        """Counts records."""
        done = [(record.found, data.truths[record.index]) for record in records if record.found is not None]
        classes = len(data.vocabulary)
        precision = average_precision(
            [truth for _, truth in done],
            [found.boxes for found, _ in done],
            [found.scores for found, _ in done],
            [found.labels for found, _ in done],
            classes,
            data.limit,
        )
        top_k = BoxTopK(classes)
        counts = np.zeros(classes, np.int64)
        for found, truth in done:
            np.add.at(counts, truth.labels, 1)
            if found.ranks is not None:
                top_k.update(found.ranks, truth.labels)
        given = any(found.ranks is not None for found, _ in done)
        return cls(settings, records, precision, top_k if given else None, counts)

    @property
    def failures(self) -> list[BoxRecord]:
        """Images that were left out."""
        return [record for record in self.records if record.error is not None]


def evaluate_detections(
    detect: Detect,
    data: BoxSet,
    *,
    settings: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    limit: int | None = None,
    progress: Callable[[], None] | None = None,
) -> DetectionEvaluation | None:
    """Searches every image and counts.

    An image that cannot be read, or that has not the size that its annotations say, is left out and named in
    its record. In a process group (``launch``) every process takes its share.

    Args:
        detect: The detector, e.g. ``lambda image, truth: predictor.detect(image, data.vocabulary)``.
        data: Images, true boxes and words.
        settings: Of the detector, for the report; with ``folder`` they must name all that the result depends
            on.
        folder: Where records go as they are made, and come from if an earlier run stopped.
        limit: Only so many images, spread evenly over the data set.
        progress: Called after each image.

    Returns:
        None in processes other than the first.

    Raises:
        ValueError: ``folder`` holds the evaluation of something else.
    """
    everything = {
        **(settings or {}),
        "data": data.name,
        "split": data.split,
        "images": len(data),
        "seed": data.seed,
        "vocabulary": data.vocabulary.fingerprint,
        "limit": limit,
    }
    loop = Loop(everything, lambda index: _record(detect, data, index), BoxRecord.from_dict)
    records = loop.run(spread(len(data), limit), folder, progress)
    return None if records is None else DetectionEvaluation.of(everything, records, data)


def _record(detect: Detect, data: BoxSet, index: int) -> BoxRecord:
    truth = data.truths[index]
    try:
        image = read_image(data.image(index))
        if image.shape[:2] != truth.size:
            raise ValueError(
                f"the image is {image.shape[:2]}, its annotations are for {truth.size}: they do not belong "
                "together"
            )
        start = time.perf_counter()
        found = detect(image, truth)
        return BoxRecord.of(index, truth.file_name, found, time.perf_counter() - start)
    except Exception as error:
        return BoxRecord(index, truth.file_name, error=str(error) or type(error).__name__)
