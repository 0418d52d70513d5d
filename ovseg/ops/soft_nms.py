"""Soft-NMS: Bodla et al., Soft-NMS: Improving Object Detection With One Line of Code, ICCV 2017."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ovseg._lazy import ops

__all__ = ["SoftNMSMethod", "soft_nms"]

SoftNMSMethod = Literal["naive", "linear", "gaussian"]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    method: SoftNMSMethod = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    min_score: float = 1e-3,
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Lowers the scores of boxes that overlap better ones instead of dropping them.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,).
        method: ``gaussian`` multiplies by exp(-iou^2 / sigma), ``linear`` by 1 - iou above the threshold,
            ``naive`` drops above the threshold, as ordinary NMS does.
        sigma: Of ``gaussian``.
        iou_threshold: Of ``linear`` and ``naive``.
        min_score: Boxes whose score falls below it are dropped.
        offset: 1 where x2 and y2 are the last pixels inside.

    Returns:
        (M,) indices, the best first, and (M,) their scores.
    """
    boxes, scores = boxes.detach().double(), scores.detach().clone()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    left = torch.arange(len(boxes), device=boxes.device)
    kept, final = [], []
    while len(left):
        best = int(scores[left].argmax())
        index = left[best]
        kept.append(index)
        final.append(scores[index].clone())
        left = torch.cat([left[:best], left[best + 1 :]])
        iou = ops.box_iou(boxes[index][None], boxes[left])[0].to(scores.dtype)
        if method == "gaussian":
            factor = torch.exp(-(iou**2) / sigma)
        else:
            over = torch.zeros_like(iou) if method == "naive" else 1 - iou
            factor = torch.where(iou >= iou_threshold, over, torch.ones_like(iou))
        scores[left] *= factor
        left = left[scores[left] >= min_score]
    if not kept:
        return left, scores[:0]
    return torch.stack(kept), torch.stack(final)
