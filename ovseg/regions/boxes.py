"""Boxes (N, 4), XYXY in pixels: from deltas and back, into the image, to another size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["clip_boxes", "decode_boxes", "encode_boxes", "rescale_boxes"]

_LARGEST = math.log(1000 / 16)  # of a predicted log scale, as in Faster R-CNN's code: exp must not overflow


def encode_boxes(boxes: Tensor, targets: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """The deltas that turn boxes into targets (Girshick et al., R-CNN, appendix C).

    Args:
        boxes: (N, 4).
        targets: (N, 4).
        weights: Multiply dx, dy, dw and dh; the inverse of mmdet's ``target_stds``.

    Returns:
        (N, 4) dx, dy, dw, dh.
    """
    centre, size = _centre_size(boxes)
    target_centre, target_size = _centre_size(targets)
    deltas = torch.cat([(target_centre - centre) / size, (target_size / size).log()], dim=1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(boxes: Tensor, deltas: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Moves boxes (N, 4) by deltas (N, 4); the inverse of ``encode_boxes``. Not clipped."""
    centre, size = _centre_size(boxes)
    shift, log_scale = (deltas / deltas.new_tensor(weights)).split(2, dim=1)
    centre = centre + shift * size
    half = 0.5 * size * log_scale.clamp(max=_LARGEST).exp()
    return torch.cat([centre - half, centre + half], dim=1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts off what of boxes (N, 4) lies outside an image of (H, W) pixels."""
    height, width = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def rescale_boxes(boxes: Tensor, size: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) of an image of ``size`` (H, W) in the pixels of the same image at ``target`` (H, W)."""
    x, y = target[1] / size[1], target[0] / size[0]
    return boxes * boxes.new_tensor([x, y, x, y])


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * size, size
