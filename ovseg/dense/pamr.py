"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020): neighbours of like colour share scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["pamr", "pamr_affinity"]

_BLOCK_ELEMENTS = 1 << 19  # scores refined at once: 2 MB stay in the processor's cache
_OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def _neighbours(x: Tensor, dilation: int) -> Iterator[Tensor]:
    """The 8 neighbours of every pixel of (N, C, H, W), borders replicated, as views of one padded copy."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (dilation,) * 4, mode="replicate")
    for dy, dx in _OFFSETS:
        top, left = dilation * (1 + dy), dilation * (1 + dx)
        yield padded[..., top : top + height, left : left + width]


def pamr_affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """How much each pixel listens to its neighbours.

    Args:
        image: (3, H, W) in the values that the network sees.
        dilations: Distances of the neighbours in pixels; 8 neighbours each.

    Returns:
        (8 * number of dilations, H, W), non-negative, summing to 1 over the neighbours.
    """
    image = image[None]
    near = [n for dilation in dilations for n in _neighbours(image, dilation)]
    # the deviation is taken over each window of nine, all dilations pooled: the centre counts once for each
    deviation = torch.stack(near + [image] * len(dilations)).std(dim=0)
    weights = torch.stack(
        [(image - n).abs().div_(1e-8 + 0.1 * deviation).neg_().mean(dim=1)[0] for n in near]
    )
    return weights.softmax(dim=0)


def pamr(scores: Tensor, affinity: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """Refines score maps; each channel on its own.

    Args:
        scores: (Q, H, W).
        affinity: From ``pamr_affinity`` with the same dilations.
        dilations: Distances of the neighbours in pixels.
        iterations: Rounds.

    Returns:
        (Q, H, W).
    """
    out = torch.empty_like(scores)
    step = max(_BLOCK_ELEMENTS // affinity[0].numel(), 1)
    for first in range(0, len(scores), step):
        words = slice(first, first + step)
        out[words] = _refined(scores[words][None], affinity, dilations, iterations)
    return out


def _refined(scores: Tensor, affinity: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    for _ in range(iterations):
        refined = torch.zeros_like(scores)
        near = (n for dilation in dilations for n in _neighbours(scores, dilation))
        for weight, neighbour in zip(affinity, near):
            refined.addcmul_(neighbour, weight)
        scores = refined
    return scores[0]
