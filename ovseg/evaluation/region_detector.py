"""A predictor as a detector: boxes from somewhere, named by its tower, chosen as detectors choose."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ovseg.evaluation.boxes import true_ranks
from ovseg.evaluation.detections import Boxes, Detect, Found
from ovseg.evaluation.ground_truth import GroundTruth
from ovseg.regions.boxes import clip_boxes
from ovseg.regions.fuse import ObjectnessRule, fuse, objectness_scores
from ovseg.regions.proposals import Proposals, given_proposals, grid_proposals
from ovseg.regions.select import Selection, select_detections

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = [
    "ProposalsOf",
    "RegionDetector",
    "own_detector",
    "proposals_by_name",
    "read_box_file",
    "segments_detector",
]

ProposalsOf = Callable[[np.ndarray, GroundTruth], Proposals]
"""From an image (H, W, 3) uint8 RGB and its truth to boxes in its pixels."""


@dataclass(frozen=True)
class RegionDetector:
    """Names the boxes of a proposal source; ``Detect``. A fine-tuned detector moves them, but for true ones.

    Attributes:
        predictor: Any whose features are in the space of words.
        vocabulary: The words.
        proposals: Where boxes come from; None for the true ones ("GT").
        objectness: How it enters the score, where there is any: ``sigmoid`` as the predictor does it;
            ``raw_logit`` is RegionCLIP's own rule, see ``objectness_scores``.
        selection: Threshold, suppression, number.
    """

    predictor: Predictor
    vocabulary: Vocabulary
    proposals: ProposalsOf | None = None
    objectness: ObjectnessRule = "sigmoid"
    selection: Selection = field(default_factory=Selection)

    def __call__(self, image: np.ndarray, truth: GroundTruth) -> Found:
        """What is found in an image."""
        given = given_proposals(truth.boxes) if self.proposals is None else self.proposals(image, truth)
        raw = self.objectness == "raw_logit" and given.logits is not None
        seen = Proposals(given.boxes) if raw else given
        moved, scores = map(torch.from_numpy, self.predictor.regions(image, self.vocabulary, proposals=seen))
        if raw:
            assert given.logits is not None
            scores = fuse([scores, objectness_scores(given.logits, "raw_logit")], [0.5, 0.5])
        ranks = None if self.proposals is not None else true_ranks(scores.numpy(), truth.labels)
        boxes = given.boxes if self.proposals is None else moved
        found = select_detections(clip_boxes(boxes, (image.shape[0], image.shape[1])), scores, self.selection)
        return Found(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy(), ranks)


def segments_detector(predictor: Predictor, vocabulary: Vocabulary) -> Detect:
    """Connected parts of the segmentation as objects (see ``Predictor.detect``), however unsure."""

    def detect(image: np.ndarray, truth: GroundTruth) -> Boxes:
        return predictor.detect(image, vocabulary, threshold=0.0, keep_image=False)

    return detect


def own_detector(predictor: Predictor, vocabulary: Vocabulary, selection: Selection) -> Detect:
    """A fine-tuned detector with the boxes of its own localiser, moved by its regressor."""

    def detect(image: np.ndarray, truth: GroundTruth) -> Found:
        boxes, scores = (torch.from_numpy(values) for values in predictor.regions(image, vocabulary))
        size = (image.shape[0], image.shape[1])
        found = select_detections(clip_boxes(boxes, size), scores, selection)
        return Found(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy())

    return detect


def proposals_by_name(source: str, device: torch.device | str = "cpu") -> ProposalsOf | None:
    """Where boxes come from.

    Args:
        source: ``truth``; ``grid``; a ``.json`` file in the layout of COCO's results (``image_id``, ``bbox``
            as x, y, width, height, and ``score``, a probability); or a localiser's ``.pth`` file.
        device: Where a localiser is to run.

    Raises:
        ValueError: There is no such source, or the file has another layout.
    """
    if source == "truth":
        return None
    if source == "grid":
        return lambda image, truth: grid_proposals((image.shape[0], image.shape[1]))
    if not Path(source).is_file():
        raise ValueError(
            f"no proposals {source!r}: own, truth, segments, grid, a .json file of boxes, or a .pth file"
        )
    if source.endswith(".pth"):
        from ovseg.models.detectors import load_localiser

        localiser = load_localiser(source, device)
        return lambda image, truth: localiser(image)
    by_image = read_box_file(Path(source))
    return lambda image, truth: by_image.get(truth.image_id, given_proposals([]))


def read_box_file(path: Path) -> Mapping[int, Proposals]:
    """Boxes by ``image_id`` from a file in the layout of COCO's results; their classes do not count.

    Raises:
        ValueError: The file has another layout, a box has no area, or a score is no probability.
    """
    try:
        rows: dict[int, list[tuple[list[float], float]]] = {}
        for item in json.loads(path.read_text("utf-8")):
            x, y, width, height = item["bbox"]
            rows.setdefault(item["image_id"], []).append(([x, y, x + width, y + height], item["score"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no list of image_id, bbox and score ({type(error).__name__}: {error})"
        ) from error
    return {
        key: given_proposals([box for box, _ in own], np.array([score for _, score in own]))
        for key, own in rows.items()
    }
