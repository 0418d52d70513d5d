"""Redraws the regions of a label map with a network that draws masks around prompts (Trident)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.inference.steps import SamRefine

__all__ = ["PromptedMasks", "redraw"]

_PROMPTS = 16  # masks drawn at once
_EIGHT = [[1, 1, 1]] * 3  # neighbours that belong to one region


class PromptedMasks(Protocol):
    """Draws masks on one image; ``ovseg.towers.sam_masks.SamMasks`` is one."""

    def prompt(self, weights: Tensor) -> Tensor:
        """A map (h, w) of the whole image as a mask prompt."""

    def __call__(
        self,
        boxes: Tensor,
        points: Tensor,
        frame: tuple[int, int],
        prompt: Tensor,
        prompt_norm: Literal["channels", "rows"],
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, H, W) and expected quality (n,) for boxes (n, 4) and points (n, 2)."""


def redraw(
    label_map: Tensor,
    probability: Callable[[int], Tensor],
    classes: int,
    masks: PromptedMasks,
    step: SamRefine,
) -> Tensor:
    """Prompts with every connected region of a class: its box, its surest pixel, the class's probabilities.

    Where masks that are good enough cover a pixel, the class with the largest mask probability times class
    probability wins; other pixels keep their label. Regions are found at half the resolution.

    Args:
        label_map: (H, W) class indices, -1 = unlabelled.
        probability: Gives the probabilities (H, W) of a class.
        classes: Number of classes.
        masks: Draws.
        step: Thresholds.

    Returns:
        (H, W) labels.
    """
    frame = (max(label_map.shape[0] // 2, 1), max(label_map.shape[1] // 2, 1))
    coarse, surest = _coarse(label_map, probability, classes, frame, step)
    redrawn, best = label_map.clone(), torch.zeros(label_map.shape, device=label_map.device)
    for k, sure in surest.items():
        boxes, points = _regions(coarse == k, sure, step.min_area)
        if not len(boxes):
            continue
        prompt = masks.prompt(sure)
        prompt = torch.where(prompt > step.coarse, step.mask_weight * prompt, 0.0)
        drawn = [
            _good(*masks(box, point, frame, prompt, step.prompt_norm), step)
            for box, point in zip(boxes.split(_PROMPTS), points.split(_PROMPTS))
        ]
        cover = torch.stack(drawn).amax(dim=0)
        score = torch.where(cover > 0, cover.sigmoid() * probability(k), 0.0)
        redrawn[score > best] = k
        best = torch.maximum(best, score)
    return redrawn


def _coarse(
    label_map: Tensor,
    probability: Callable[[int], Tensor],
    classes: int,
    frame: tuple[int, int],
    step: SamRefine,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Labels (h, w) at half size, -1 where no class is sure; probabilities of the classes found there."""
    labels = F.interpolate(label_map[None, None].float(), frame, mode="nearest")[0, 0].to(label_map.dtype)
    found, surest = set(labels.unique().tolist()), {}
    best = torch.zeros(frame, device=label_map.device)
    for k in range(classes):
        full = probability(k)[None, None]
        sure = F.interpolate(full, frame, mode="bilinear", align_corners=False)[0, 0]
        best = torch.maximum(best, sure)
        if k in found and sure.max() >= step.coarse:
            surest[k] = sure
    return labels.masked_fill(best < step.coarse, -1), surest


def _regions(inside: Tensor, sure: Tensor, min_area: int) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) XYXY, last pixels included, and surest pixels (n, 2) XY of the connected regions."""
    from scipy import ndimage

    found, _ = ndimage.label(inside.cpu().numpy(), _EIGHT)
    boxes, points = [], []
    for region, (rows, cols) in enumerate(ndimage.find_objects(found), start=1):
        own = torch.from_numpy(found[rows, cols] == region).to(sure.device)
        if own.sum() < min_area:
            continue
        y, x = divmod(int((sure[rows, cols] * own).argmax()), own.shape[1])
        boxes.append([cols.start, rows.start, cols.stop - 1, rows.stop - 1])
        points.append([cols.start + x, rows.start + y])
    box, point = torch.tensor(boxes, dtype=torch.float32), torch.tensor(points, dtype=torch.float32)
    return box.to(sure.device), point.to(sure.device)


def _good(logits: Tensor, quality: Tensor, step: SamRefine) -> Tensor:
    """(H, W) the largest logit among the masks that are good enough, -inf without any."""
    bad = quality <= step.min_quality
    return logits.masked_fill(bad[:, None, None], -torch.inf).amax(dim=0)
