"""Regions to vectors of the joint space: four ways, one signature for each.

A: the last stage and the attention pool of a ResNet on RoIAlign of the stage before (RegionCLIP, CORA).
B: RoIAlign on a dense map in the joint space (CLIPSelf, F-ViT, FG-CLIP). C: crops through the whole tower
(ViLD, GC-CLIP). D: the mean of a dense map under a mask (FC-CLIP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg._lazy import ops
from ovseg.regions.boxes import clip_boxes
from ovseg.towers.clip_resnet import ModifiedResNet

__all__ = ["embed_by_pool", "embed_crops", "embed_dense", "embed_masks", "region_maps"]

_REGIONS_AT_ONCE = 16  # few enough for the maps of the last stage to stay in the processor's caches


def region_maps(features: Tensor, boxes: Sequence[Tensor], size: int, stride: int) -> Tensor:
    """Cuts boxes out of feature maps, with as many samples as each box needs.

    Args:
        features: (B, C, h, w).
        boxes: For each image (N_b, 4) XYXY in pixels of the network's input.
        size: Cells a side of a region's map.
        stride: Pixels of the input per step of ``features``.

    Returns:
        (sum N_b, C, size, size), image after image.
    """
    cast = [b.to(features) for b in boxes]
    return ops.roi_align(features, cast, size, 1 / stride, sampling_ratio=-1, aligned=True)


def embed_by_pool(
    tower: ModifiedResNet, stage3: Tensor, boxes: Sequence[Tensor], *, at_once: int = _REGIONS_AT_ONCE
) -> Tensor:
    """A: the tower's own last stage and attention pool on each region.

    The regions are twice as fine as the pool's trained grid (14 for RN50, 18 for RN50x4), so that no position
    is resized.

    Args:
        tower: In evaluation mode, or with frozen batch norms.
        stage3: (B, C, h, w), of stride 16.
        boxes: See ``region_maps``.
        at_once: Regions per forward.

    Returns:
        (sum N_b, D), not normalised.
    """
    rois = _with_image_index(boxes, stage3)
    size = 2 * tower.attnpool.grid
    parts = [
        tower.region_embedding(ops.roi_align(stage3, part, size, 1 / 16, sampling_ratio=-1, aligned=True))
        for part in rois.split(at_once)
    ]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def embed_dense(
    patches: Tensor, boxes: Sequence[Tensor], stride: int, *, normalise_first: bool = True
) -> Tensor:
    """B: the mean of a dense map inside each box.

    Args:
        patches: (B, D, h, w) in the joint space.
        boxes: See ``region_maps``.
        stride: Pixels per step of ``patches``.
        normalise_first: Give every patch unit length before the mean (CLIPSelf, F-ViT) or not (FG-CLIP).

    Returns:
        (sum N_b, D), not normalised.
    """
    if normalise_first:
        patches = F.normalize(patches, dim=1)
    return region_maps(patches, boxes, 1, stride).flatten(1)


def embed_crops(
    encode: Callable[[Tensor], Tensor],
    image: Tensor,
    boxes: Tensor,
    size: int,
    *,
    scales: Sequence[float] = (1.0,),
    at_once: int = _REGIONS_AT_ONCE,
) -> Tensor:
    """C: each box cut out of the image, squashed to a square, through the whole tower.

    Args:
        encode: (n, 3, size, size) normalised crops to (n, D), e.g. ``CLIP.encode_image``.
        image: (3, H, W), normalised.
        boxes: (N, 4) XYXY in pixels; what lies outside the image is cut off.
        size: Side of the crops in pixels, that of the tower's training.
        scales: The box, and the box enlarged about its centre: (1, 1.5) in ViLD.
        at_once: Crops per forward.

    Returns:
        (N, D) of unit length: the sum over the scales of the unit embeddings, normalised.
    """
    total: Tensor | None = None
    for scale in scales:
        crops = [_crop(image, box, size) for box in _enlarged(boxes, scale)]
        parts = [encode(torch.stack(crops[i : i + at_once])) for i in range(0, len(crops), at_once)]
        unit = F.normalize(torch.cat(parts), dim=-1) if parts else image.new_zeros(0, 0)
        total = unit if total is None else total + unit
    assert total is not None
    return F.normalize(total, dim=-1)


def embed_masks(patches: Tensor, masks: Tensor) -> Tensor:
    """D: the mean of a dense map under each mask.

    Args:
        patches: (D, h, w) in the joint space, of one image.
        masks: (N, H, W) bool, or weights from 0 to 1, of any size; they are averaged down to the map.

    Returns:
        (N, D), not normalised; zeros for an empty mask.
    """
    grid = (patches.shape[-2], patches.shape[-1])
    weights = F.adaptive_avg_pool2d(masks.to(patches)[:, None], grid)[:, 0].flatten(1)  # (N, h * w)
    total = weights.sum(dim=1, keepdim=True)
    return weights @ patches.flatten(1).T / total.clamp(min=torch.finfo(patches.dtype).tiny)


def _with_image_index(boxes: Sequence[Tensor], like: Tensor) -> Tensor:
    """Lists of (N_b, 4) to one (N, 5) with the image's index first."""
    return torch.cat([F.pad(b.to(like), (1, 0), value=i) for i, b in enumerate(boxes)])


def _enlarged(boxes: Tensor, scale: float) -> Tensor:
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, scale * (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _crop(image: Tensor, box: Tensor, size: int) -> Tensor:
    """(3, size, size): the pixels that the box touches, at least one, resized as CLIP's own input is."""
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = clip_boxes(box[None], (height, width))[0].tolist()
    left, top = min(int(x1), width - 1), min(int(y1), height - 1)
    right, bottom = max(-int(-x2 // 1), left + 1), max(-int(-y2 // 1), top + 1)
    crop = image[None, :, top:bottom, left:right]
    return F.interpolate(crop, (size, size), mode="bicubic", align_corners=False, antialias=True)[0]
