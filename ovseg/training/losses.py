"""Losses between image, region and text embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LossWeights", "RegionTargets", "caption_loss", "name_loss", "patch_loss", "region_loss"]

_TEXTURE_WEIGHT = 0.3  # textures are 13 of the rows, but a third of the regions and most of the pixels
_MAX_PATCHES = 1500


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 leaves one out.

    Attributes:
        caption: Scenes against captions, as in CLIP.
        name: Single drawings against all names.
        region: Dense features averaged in exact masks against all names.
        patch: Single patches against all names.
        maskclip: For ViTs: share of ``region`` and ``patch`` that reads the last block as MaskCLIP does
            (value path, then residual and MLP); the rest reads the bare value path.
    """

    caption: float = 1.0
    name: float = 1.0
    region: float = 1.0
    patch: float = 0.5
    maskclip: float = 0.6

    @property
    def dense(self) -> bool:
        """Whether masks are used at all."""
        return self.region > 0 or self.patch > 0


@dataclass(frozen=True)
class RegionTargets:
    """What the patches of a batch show.

    Attributes:
        shares: (B, P, O) share of each patch that instance o covers; o = 0 is the texture.
        labels: (B, O) row of the names that each instance is, -1 where there is none.
    """

    shares: Tensor
    labels: Tensor

    @classmethod
    def from_instances(cls, instances: Tensor, labels: Tensor, patch: int) -> RegionTargets:
        """From (B, S, S) numbers of instances, S a multiple of ``patch`` pixels."""
        cells = F.one_hot(instances.long(), labels.shape[1]).float()
        cells = cells.unflatten(2, (-1, patch)).unflatten(1, (-1, patch)).mean((2, 4))  # (B, h, w, O)
        return cls(cells.flatten(1, 2), labels)

    def take(self, patches: Tensor) -> RegionTargets:
        """Only some patches of each image, by their indices (B, N)."""
        index = patches[..., None].expand(-1, -1, self.shares.shape[2])
        return RegionTargets(self.shares.gather(1, index), self.labels)


def caption_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric contrastive loss of unit embeddings (B, C) of images and their captions."""
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def name_loss(image: Tensor, names: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy over all names (R, C) of images (B, C) that show one thing, labels (B,)."""
    if not len(image):
        return image.sum()
    return F.cross_entropy(scale * image @ names.T, labels)


def region_loss(patches: Tensor, targets: RegionTargets, names: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy over all names of the patches' mean in each instance's exact mask.

    Args:
        patches: (B, P, C) dense features, not normalised.
        targets: What they show.
        names: (R, C) unit embeddings.
        scale: Inverse temperature.
    """
    area = targets.shares.sum(1)  # (B, O), in patches
    least = torch.full_like(area, 1.5)
    least[:, 0] = 3
    image, instance = ((targets.labels >= 0) & (area > least)).nonzero(as_tuple=True)
    pooled = torch.einsum("bpo,bpc->boc", targets.shares, patches)[image, instance]
    logits = scale * F.normalize(pooled, dim=-1) @ names.T
    loss = F.cross_entropy(logits, targets.labels[image, instance], reduction="none")
    weight = torch.where(instance == 0, _TEXTURE_WEIGHT, 1.0)
    return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


def patch_loss(
    patches: Tensor, targets: RegionTargets, names: Tensor, scale: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy over all names of single patches that show mostly one instance.

    Only a quarter of the patches that show texture count, and at most 1500 patches of a batch.
    """
    share, instance = targets.shares.max(-1)  # (B, P)
    labels = targets.labels.gather(1, instance)
    kept = (instance > 0) | (torch.rand(instance.shape, generator=generator) < 0.25)
    at = ((share > 0.6) & (labels >= 0) & kept).flatten().nonzero()[:, 0]
    if not len(at):
        return patches.sum() * 0
    if len(at) > _MAX_PATCHES:
        at = at[torch.randperm(len(at), generator=generator)[:_MAX_PATCHES]]
    logits = scale * F.normalize(patches.flatten(0, 1)[at], dim=-1) @ names.T
    return F.cross_entropy(logits, labels.flatten()[at])
