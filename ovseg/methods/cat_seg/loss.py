"""CAT-Seg's loss."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["IGNORE", "segmentation_loss"]

IGNORE = 255
_ELEMENTS = 1 << 23  # full-size logits at once


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    ignored: Literal["skip", "negative"] = "skip",
    ignore_index: int = IGNORE,
    balanced: bool = False,
) -> Tensor:
    """Binary cross-entropy of every class at every pixel, averaged over both.

    Full-size logits and one-hot targets are never there for all classes at once: the loss of a pixel and a
    class is softplus(z), less z where the pixel is of that class.

    Args:
        logits: (B, K, h, w); resized to the labels bilinearly.
        labels: (B, H, W) class indices or ``ignore_index``.
        ignored: Pixels without a label are left out (``skip``), or are examples against every class
            (``negative``; the authors' code).
        ignore_index: Label of pixels without one.
        balanced: All classes that an image shows count alike in it, whatever their area.
    """
    labels = labels.long()
    valid = labels != ignore_index
    counted = valid.float() if ignored == "skip" else torch.ones_like(valid, dtype=torch.float32)
    labels = labels.masked_fill(~valid, -1)
    if balanced:
        counted = counted * torch.stack([_evened(image) for image in labels])
    step = max(_ELEMENTS // (labels.shape[1] * labels.shape[2]), 1)
    total = logits.new_zeros(())
    for image, target, weight in zip(logits, labels, counted):
        for first in range(0, len(image), step):
            part = image[first : first + step]
            total = total + checkpoint(_summed, part, target - first, weight, use_reentrant=False)
    return total / (counted.sum() * logits.shape[1]).clamp(min=1)


def _summed(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Sum of the loss of k classes (k, h, w) over the pixels (H, W); other labels are negative for all."""
    full = F.interpolate(logits[None], labels.shape, mode="bilinear", align_corners=False)[0]
    here = (labels >= 0) & (labels < len(full))
    own = full.gather(0, labels.clamp(0, len(full) - 1)[None])[0]
    return (F.softplus(full) * counted).sum() - (own * counted)[here].sum()


def _evened(labels: Tensor) -> Tensor:
    """Weights of pixels (H, W), 1 on average, that sum to one value over each of an image's labels."""
    _, places, areas = labels.unique(return_inverse=True, return_counts=True)
    return (labels.numel() / (len(areas) * areas))[places]
