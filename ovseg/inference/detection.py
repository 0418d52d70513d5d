"""From a model and boxes, or from a segmentation, to detections: what the predictor's ``detect`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.inference.results import SegResult
from ovseg.regions.boxes import clip_boxes
from ovseg.regions.classify import class_rows, region_logits, region_scores
from ovseg.regions.embed import embed_by_pool, embed_dense
from ovseg.regions.fuse import fuse, objectness_scores
from ovseg.regions.proposals import Proposals, given_proposals, grid_proposals, read_proposals
from ovseg.regions.select import Selection, select_detections
from ovseg.towers.clip_resnet import ModifiedResNet
from ovseg.vocab.text_bank import TextBank

__all__ = [
    "SEGMENTS", "Objects", "ProposalSource", "find_proposals", "foreground_scores", "region_objects",
    "score_regions", "segment_objects",
]  # fmt: skip

SEGMENTS = "segments"
"""The source of objects that needs no boxes: connected parts of the segmentation."""

ProposalSource = str | os.PathLike[str] | np.ndarray | Proposals | Callable[[np.ndarray], Proposals]
"""``segments``, ``grid``, an ``.npz`` file with ``boxes``, boxes (N, 4) in pixels, proposals, or a function
of the image (H, W, 3) that finds them, such as ``ovseg.models.detectors.load_localiser`` gives."""


def find_proposals(source: ProposalSource, image: np.ndarray) -> Proposals:
    """Boxes in an image (H, W, 3) uint8 RGB from any source but ``segments``.

    Raises:
        ValueError: The source is unknown, or its boxes are wrong.
    """
    if isinstance(source, Proposals):
        return source
    if isinstance(source, np.ndarray):
        return given_proposals(source)
    if source == "grid":
        return grid_proposals((image.shape[0], image.shape[1]))
    if callable(source):
        return source(image)
    if os.path.isfile(source):
        return read_proposals(source)
    raise ValueError(
        f"no proposals {os.fspath(source)!r}; give 'segments', 'grid', an .npz file with 'boxes', or an array"
    )


@dataclass(frozen=True)
class Objects:
    """M objects of one image, the best first.

    Attributes:
        boxes: (M, 4) float32 XYXY.
        scores: (M,) float32.
        labels: (M,) int64.
        masks: (M, H, W) bool, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


def segment_objects(result: SegResult, threshold: float, least_side: float) -> Objects:
    """The connected parts of each class; their score is the mean over their pixels.

    Args:
        result: The segmentation.
        threshold: Least score.
        least_side: Pixels that height and width must reach on average; smaller parts are noise of the grid.
    """
    from scipy import ndimage

    found: list[tuple[float, int, tuple[int, int, int, int], np.ndarray]] = []
    for label in np.unique(result.label_map[result.label_map >= 0]).tolist():
        parts, _ = ndimage.label(result.label_map == label)
        for index, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            inside = parts[rows, columns] == index
            score = float(result.scores[rows, columns][inside].mean(dtype=np.float64))
            if score < threshold or sum(inside.shape) < 2 * least_side:
                continue
            mask = np.zeros(result.size, bool)
            mask[rows, columns] = inside
            found.append((score, label, (columns.start, rows.start, columns.stop, rows.stop), mask))
    found.sort(key=lambda part: -part[0])
    return Objects(
        np.array([box for *_, box, _ in found], np.float32).reshape(-1, 4),
        np.array([score for score, *_ in found], np.float32),
        np.array([label for _, label, *_ in found], np.int64),
        np.stack([mask for *_, mask in found]) if found else np.zeros((0, *result.size), bool),
    )


def score_regions(
    model: Any, visual: Any, batch: Tensor, proposals: Proposals, bank: TextBank, scale: float
) -> Tensor:
    """Probabilities (N, K) of the classes in each box, K being those of ``bank``.

    ResNets see a box through their last stage and attention pool, ViTs as the mean of their dense features in
    it. Objectness, where there is any, enters by the geometric mean.

    Args:
        model: With ``features(batch)``.
        visual: Its CLIP tower.
        batch: (1, 3, H, W), the normalised image.
        proposals: In pixels of the batch.
        bank: All words that compete.
        scale: Of the cosine.

    Raises:
        ValueError: The model's features are not in the space of the words.
    """
    if not len(proposals):
        return batch.new_zeros(0, len(bank.vocabulary))
    boxes = [proposals.boxes.to(batch.device)]
    if isinstance(visual, ModifiedResNet):
        embedded = embed_by_pool(visual, visual.stage3(batch), boxes)
    else:
        features = model.features(batch)
        if features.space != "joint":
            raise ValueError("this method's features are not comparable with words; choose another method")
        embedded = embed_dense(features.patches, boxes, features.stride)
    logits = region_logits(embedded.float(), class_rows(bank), scale)
    scores = region_scores(logits, bank.word_to_class, len(bank.vocabulary))[:, :-1]
    if proposals.logits is None:
        return scores
    return fuse([scores, objectness_scores(proposals.logits.to(scores), "sigmoid")], [0.5, 0.5])


def region_objects(proposals: Proposals, scores: Tensor, size: tuple[int, int], threshold: float) -> Objects:
    """One label for each place.

    Args:
        proposals: N boxes, in pixels of the image.
        scores: (N, K) without background.
        size: (H, W) of the image; boxes are clipped to it.
        threshold: Least score.
    """
    selection = Selection(threshold, across_classes=True)
    found = select_detections(clip_boxes(proposals.boxes, size), scores, selection)
    return Objects(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy())


def foreground_scores(scores: Tensor, kept: Sequence[int] | None) -> Tensor:
    """Scores (N, K) without the background classes, 0 where one of those is the best.

    Args:
        scores: Of all that compete.
        kept: The classes that results may have; None for all.
    """
    if kept is None:
        return scores
    own = scores[:, list(kept)]
    wins = own.amax(dim=1, keepdim=True) >= scores.amax(dim=1, keepdim=True)
    return torch.where(wins, own, 0)
