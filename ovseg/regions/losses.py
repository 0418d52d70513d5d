"""RegionCLIP's losses (Zhong et al., CVPR 2022): pretraining, section 3.2; fine-tuning, section 3.3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "concept_contrastive_loss", "distillation_loss", "focal_cross_entropy", "image_text_loss",
    "region_box_loss", "weighted_cross_entropy",
]  # fmt: skip


def focal_cross_entropy(
    logits: Tensor, labels: Tensor, *, gamma: float = 0.5, background_weight: float = 1.0
) -> Tensor:
    """Cross entropy scaled by (1 - p)^gamma, so that base classes are not overfitted (their OV-COCO recipe).

    Args:
        logits: (N, K + 1), background last.
        labels: (N,), K = background.
        gamma: 0 gives the plain cross entropy.
        background_weight: Multiplies the loss of background regions; the mean is over all N all the same.

    Returns:
        Scalar; 0 without regions.
    """
    if not len(labels):
        return logits.sum()
    loss = F.cross_entropy(logits, labels, reduction="none")
    if gamma:
        loss = loss * (1 - torch.exp(-loss)).clamp(min=0) ** gamma
    return (loss * _weights(labels, logits.shape[1] - 1, background_weight, loss)).mean()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, background_weight: float) -> Tensor:
    """Their OV-LVIS recipe: not focal, and divided by the sum of the weights.

    Arguments as for ``focal_cross_entropy``.
    """
    if not len(labels):
        return logits.sum()
    loss = F.cross_entropy(logits, labels, reduction="none")
    weights = _weights(labels, logits.shape[1] - 1, background_weight, loss)
    return (loss * weights).sum() / weights.sum()


def region_box_loss(deltas: Tensor, targets: Tensor, foreground: Tensor) -> Tensor:
    """L1 between deltas and targets (N, 4) of foreground regions (N,) bool, over N, the number of all."""
    return (deltas - targets)[foreground].abs().sum() / max(len(deltas), 1)


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence from the teacher's distribution over concepts (N, C) to the student's logits (N, C)."""
    return F.kl_div(logits.log_softmax(dim=1), teacher, reduction="batchmean")


def concept_contrastive_loss(regions: Tensor, concepts: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Each region against the concepts of all regions of the batch; every equal concept is a positive.

    Args:
        regions: (N, D), the student's.
        concepts: (N, D), the embedding of the concept that the teacher gave to each.
        labels: (N,) which concept.
        temperature: Of the softmax.
    """
    logits = F.normalize(regions, dim=1) @ F.normalize(concepts, dim=1).T / temperature
    positive = labels[:, None] == labels[None]
    return -(logits.log_softmax(dim=1).masked_fill(~positive, -torch.inf).logsumexp(dim=1)).mean()


def image_text_loss(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """CLIP's symmetric contrastive loss of images (B, D) and their captions (B, D)."""
    logits = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _weights(labels: Tensor, background: int, weight: float, like: Tensor) -> Tensor:
    return torch.where(labels == background, weight, 1.0).to(like)
