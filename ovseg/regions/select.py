"""From scores of all classes in all boxes to a list of detections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg._lazy import ops
from ovseg.ops.soft_nms import soft_nms

__all__ = ["Detections", "Selection", "select_detections"]


@dataclass(frozen=True)
class Selection:
    """Which of all boxes and classes become detections.

    Attributes:
        threshold: Scores must exceed it.
        nms: IoU above which a box of the same class repeats a better one.
        limit: Most detections of an image.
        soft_sigma: Width of the Gaussian of soft-NMS, which then replaces NMS (RegionCLIP fine-tuned: 0.5).
        soft_least: Boxes whose lowered score falls below it are dropped.
        across_classes: NMS among all classes: one label per place.
    """

    threshold: float = 1e-3
    nms: float = 0.5
    limit: int = 100
    soft_sigma: float | None = None
    soft_least: float = 1e-3
    across_classes: bool = False


@dataclass(frozen=True)
class Detections:
    """M detections, the best first.

    Attributes:
        boxes: (M, 4) XYXY.
        scores: (M,).
        labels: (M,) int64.
        regions: (M,) int64, the region that each came from.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    regions: Tensor


def select_detections(boxes: Tensor, scores: Tensor, selection: Selection) -> Detections:
    """Threshold, suppression class by class, and the best.

    Args:
        boxes: (N, 4) XYXY, clipped.
        scores: (N, K), without a background column. Rows that are not finite are dropped.
        selection: The rules.
    """
    valid = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    regions, labels = ((scores > selection.threshold) & valid[:, None]).nonzero(as_tuple=True)
    values = scores[regions, labels]
    groups = torch.zeros_like(labels) if selection.across_classes else labels
    if selection.soft_sigma is None:
        kept = ops.batched_nms(boxes[regions].float(), values.float(), groups, selection.nms)
        values = values[kept]
    else:
        kept, values = _soft(boxes[regions], values, groups, selection)
    kept, values = kept[: selection.limit], values[: selection.limit]
    return Detections(boxes[regions[kept]], values, labels[kept], regions[kept])


def _soft(boxes: Tensor, scores: Tensor, groups: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    """Soft-NMS within each group: indices and lowered scores, the best first."""
    assert selection.soft_sigma is not None
    kept, values = [torch.zeros(0, dtype=torch.long, device=boxes.device)], [scores[:0]]
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        best, lowered = soft_nms(
            boxes[members],
            scores[members],
            method="gaussian",
            sigma=selection.soft_sigma,
            min_score=selection.soft_least,
        )
        kept.append(members[best])
        values.append(lowered)
    joined, order = torch.cat(values).sort(descending=True)
    return torch.cat(kept)[order], joined
