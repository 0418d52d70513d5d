"""Runs a predictor over a data set and adds up what it finds: interruptible, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovseg.evaluation.calibration import Calibration
from ovseg.evaluation.loop import Loop, spread
from ovseg.evaluation.miou import ClassAreas
from ovseg.evaluation.records import ImageRecord
from ovseg.evaluation.sets import EvaluationSet
from ovseg.inference.steps import Softmax
from ovseg.vocab.cache import weights_hash
from ovseg.vocab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """The counts of all images.

    Attributes:
        settings: What was evaluated.
        records: One for each image, by index; images that failed have an ``error``.
        areas: Sum over images.
        boundary: Sum over images, of the boundaries.
        calibration: Sum over images, or None where scores are no probabilities.
    """

    settings: Mapping[str, Any]
    records: Sequence[ImageRecord]
    areas: ClassAreas
    boundary: ClassAreas
    calibration: Calibration | None

    @classmethod
    def of(cls, settings: Mapping[str, Any], records: Sequence[ImageRecord], num_classes: int) -> Evaluation:
        """Adds up records."""
        areas = boundary = ClassAreas.zeros(num_classes)
        calibration: Calibration | None = None
        for record in records:
            if record.areas is not None and record.boundary is not None:
                areas, boundary = areas + record.areas, boundary + record.boundary
            if record.calibration is not None:
                calibration = (calibration or Calibration.zeros()) + record.calibration
        return cls(settings, records, areas, boundary, calibration)

    @property
    def failures(self) -> list[ImageRecord]:
        """Images that were left out."""
        return [record for record in self.records if record.error is not None]


def evaluate(
    predictor: Predictor,
    data: EvaluationSet,
    *,
    folder: Path | None = None,
    limit: int | None = None,
    present_only: bool = False,
    progress: Callable[[], None] | None = None,
) -> Evaluation | None:
    """Segments every image and counts.

    An image that cannot be read, or whose labels cannot, is left out and named in its record. In a process
    group (``launch``) every process takes its share.

    Args:
        predictor: With the protocol that is evaluated.
        data: Images, labels and words.
        folder: Where records go as they are made, and come from if an earlier run stopped.
        limit: Only so many images, spread evenly over the data set.
        present_only: Ask in each image only for the classes that are labelled in it.
        progress: Called after each image.

    Returns:
        The counts; None in processes other than the first.

    Raises:
        ValueError: ``folder`` holds the evaluation of something else.
    """
    settings = _settings(predictor, data, limit, present_only)
    loop = Loop(
        settings,
        lambda index: _record(predictor, data, index, present_only),
        lambda stored: ImageRecord.from_dict(stored, len(data.classes)),
    )
    records = loop.run(spread(len(data), limit), folder, progress)
    return None if records is None else Evaluation.of(settings, records, len(data.classes))


def _record(predictor: Predictor, data: EvaluationSet, index: int, present_only: bool) -> ImageRecord:
    name = data.label(index)
    try:
        truth = data.truth(index)
        asked = _asked(data, truth if present_only else None)
        vocabulary = _without_background(data.vocabulary, predictor, asked)
        background = None if predictor.protocol.background is None else "none"
        image: Any = data.image(index)
        result = predictor.segment(image, vocabulary, background=background, keep_image=False)
    except Exception as error:
        return ImageRecord(index, name, error=str(error) or type(error).__name__)
    if result.label_map.shape != truth.shape:
        reason = f"the image is {result.size}, its labels are {truth.shape}: they do not belong together"
        return ImageRecord(index, name, error=reason)
    labels = np.array([*(data.order[i] for i in asked), -1], np.int32)[result.label_map]
    probable = any(isinstance(step, Softmax) for step in predictor.protocol.steps)
    return ImageRecord.count(
        index,
        name,
        labels,
        truth,
        len(data.classes),
        result.scores if probable else None,
        result.seconds or 0.0,
    )


def _asked(data: EvaluationSet, truth: NDArray[np.int32] | None) -> list[int]:
    """Classes of the vocabulary that an image is asked for: all, or those that its labels hold."""
    if truth is None:
        return list(range(len(data.vocabulary)))
    present = set(np.unique(truth).tolist())
    return [i for i, k in enumerate(data.order) if k in present]


def _without_background(vocabulary: Vocabulary, predictor: Predictor, asked: Sequence[int]) -> Vocabulary:
    """The words to ask for.

    Benchmarks score background like any class, and a rule of the predictor would take it out of the labels.
    Where a protocol's steps know what background is, the mark stays.
    """
    chosen = tuple(vocabulary.classes[i] for i in asked)
    if predictor.protocol.background is not None:
        chosen = tuple(replace(item, is_background=False) for item in chosen)
    return replace(vocabulary, classes=chosen)


def _settings(
    predictor: Predictor, data: EvaluationSet, limit: int | None, present_only: bool
) -> dict[str, Any]:
    return {
        "model": predictor.name,
        "weights": weights_hash(predictor.model)[:16],
        "protocol": repr(predictor.protocol),
        "data": data.name,
        "split": data.split,
        "images": len(data),
        "seed": data.seed,
        "vocabulary": data.vocabulary.fingerprint,
        "limit": limit,
        "present_only": present_only,
    }
