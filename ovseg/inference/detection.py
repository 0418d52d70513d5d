"""From a model and boxes, or from a segmentation, to detections: what the predictor's ``detect`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.dense.view import View
from ovseg.inference.results import SegResult
from ovseg.inference.writers._parts import Part, parts
from ovseg.regions.boxes import clip_boxes, rescale_boxes
from ovseg.regions.classify import class_rows, region_logits, region_scores
from ovseg.regions.embed import embed_by_pool, embed_dense
from ovseg.regions.fuse import fuse, objectness_scores
from ovseg.regions.proposals import Proposals, given_proposals, grid_proposals, read_proposals
from ovseg.regions.select import Selection, select_detections
from ovseg.towers.clip import CLIP
from ovseg.towers.clip_resnet import ModifiedResNet
from ovseg.vocab.text_bank import TextBank

__all__ = [
    "OWN", "SEGMENTS", "Objects", "ProposalSource", "find_proposals", "foreground_scores", "own_proposals",
    "region_objects", "score_regions", "segment_objects", "view_regions",
]  # fmt: skip

OWN = "own"
"""The localiser of a fine-tuned detector, which it has beside its tower."""

SEGMENTS = "segments"
"""The source of objects that needs no boxes: connected parts of the segmentation."""

ProposalSource = str | os.PathLike[str] | np.ndarray | Proposals | Callable[[np.ndarray], Proposals]
"""Where objects may be.

``own``: what the detector's localiser finds. ``segments``: connected parts of the segmentation, which become
masks too; touching objects of a class are one. ``grid``: boxes of several sizes all over the image. For one
image: boxes of a detector, an array (N, 4) XYXY in pixels of the image, ``Proposals`` (with objectness), or
an ``.npz`` file with ``boxes`` and ``scores``. Or a function of the image (H, W, 3) that finds them, such as
``load_localiser`` of ``ovseg.models.detectors`` gives."""


def find_proposals(source: ProposalSource, image: np.ndarray) -> Proposals:
    """Boxes in an image (H, W, 3) uint8 RGB from any source but ``own`` and ``segments``.

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
        f"no proposals {os.fspath(source)!r}; give 'segments', 'grid', 'own', an .npz file with 'boxes', "
        "or an array"
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
    """The connected parts of each class, the best 100; their score is the mean over their pixels.

    Args:
        result: The segmentation.
        threshold: Least score.
        least_side: Pixels that height and width must reach on average; smaller parts are noise of the grid.
    """
    found: list[tuple[float, Part]] = []
    for part in parts(result.label_map):
        if part.label < 0 or sum(part.mask.shape) < 2 * least_side:
            continue
        score = float(result.scores[part.box][part.mask].mean(dtype=np.float64))
        if score >= threshold:
            found.append((score, part))
    found.sort(key=lambda item: -item[0])
    del found[Selection().limit :]  # each has a mask as large as the image
    masks = np.zeros((len(found), *result.size), bool)
    for mask, (_, part) in zip(masks, found):
        mask[part.box] = part.mask
    corners = [(x.start, y.start, x.stop, y.stop) for y, x in (part.box for _, part in found)]
    return Objects(
        np.array(corners, np.float32).reshape(-1, 4),
        np.array([score for score, _ in found], np.float32),
        np.array([part.label for _, part in found], np.int64),
        masks,
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


def own_proposals(model: Any, view: View) -> Proposals:
    """What a detector's localiser finds in an image, given as one window; in pixels of the image.

    Raises:
        ValueError: The model has no localiser.
    """
    if getattr(model, "localiser", None) is None:
        raise ValueError("this model has no localiser of its own; give 'segments', 'grid' or boxes")
    seen = (view.image.shape[1], view.image.shape[2])
    return model.propose(next(view.batches())).rescaled(seen, view.output_size)


def view_regions(
    model: Any,
    clip: CLIP,
    view: View,
    source: ProposalSource | None,
    bank: TextBank,
    kept: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) in pixels of the image, and scores (N, K) of the classes.

    Args:
        model: A segmenter, or a detector (``RegionDetector``), which moves the boxes.
        clip: Its towers.
        view: The image as one window.
        source: Of the boxes, any but ``segments``; None is ``own``.
        bank: All words that compete.
        kept: The classes of the bank's vocabulary that are scored; None for all.

    Raises:
        ValueError: The model has no localiser, or its features are not in the space of the words.
    """
    size, seen = view.output_size, (view.image.shape[1], view.image.shape[2])
    batch, scale = next(view.batches()), float(clip.logit_scale.detach().exp())
    own = source is None or (isinstance(source, str) and source == OWN)
    proposals = own_proposals(model, view) if own else find_proposals(source, view.source)  # type: ignore[arg-type]
    inside = proposals.rescaled(size, seen)
    if hasattr(model, "regions"):
        regions = model.regions(batch, inside, bank, scale)
        return rescale_boxes(regions.boxes, seen, size), foreground_scores(regions.scores, kept)
    scores = score_regions(model, clip.visual, batch, inside, bank, scale)
    return proposals.boxes, foreground_scores(scores, kept)


def region_objects(boxes: Tensor, scores: Tensor, size: tuple[int, int], threshold: float) -> Objects:
    """One label for each place.

    Args:
        boxes: (N, 4) in pixels of the image.
        scores: (N, K) without background.
        size: (H, W) of the image; boxes are clipped to it.
        threshold: Least score.
    """
    selection = Selection(threshold, across_classes=True)
    found = select_detections(clip_boxes(boxes, size), scores, selection)
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
