"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020): neighbours of like colour share scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.operators import SparseGraph

__all__ = ["pamr", "pamr_affinity"]

_WORDS = 15  # refined at once: the rows of pixels that a row listens to stay in the processor's cache
_OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def _neighbours(x: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The neighbours of every pixel of (N, C, H, W), borders replicated, as views of padded copies."""
    height, width = x.shape[-2:]
    for dilation in dilations:
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
    near = list(_neighbours(image, dilations))
    # the deviation is taken over each window of nine, all dilations pooled: the centre counts once for each
    centres = len(dilations)
    count = len(near) + centres
    mean = sum(near, start=centres * image) / count
    square = centres * (image - mean).square_()
    for neighbour in near:
        square += (neighbour - mean).square_()
    spread = square.div_(count - 1).sqrt_().mul_(0.1).add_(1e-8)
    weights = image.new_empty(len(near), *image.shape[-2:])
    for weight, neighbour in zip(weights, near):
        torch.mean((image - neighbour).abs_().div_(spread)[0], dim=0, out=weight)
    return weights.neg_().softmax(dim=0)


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
    if scores.device.type != "cpu":
        return _by_shifts(scores, affinity, dilations, iterations)
    graph, out = _graph(affinity, dilations), torch.empty_like(scores)
    for first in range(0, len(scores), _WORDS):
        words = slice(first, first + _WORDS)
        part = scores[words].flatten(1).T.contiguous()
        for _ in range(iterations):
            part = graph(part)
        out[words] = part.T.unflatten(1, scores.shape[1:])
    return out


def _graph(affinity: Tensor, dilations: Sequence[int]) -> SparseGraph:
    """The affinity as a matrix over pixels: one pass over memory a round, where shifts need one for each."""
    neighbours, height, width = affinity.shape
    pixels = height * width
    kind = torch.int32 if affinity.numel() < 2**31 else torch.int64
    columns = torch.empty(pixels, neighbours, dtype=kind)
    shifts = ((d * dy, d * dx) for d in dilations for dy, dx in _OFFSETS)
    rows, cols = (torch.arange(side, dtype=kind) for side in (height, width))
    for i, (down, right) in enumerate(shifts):
        ends = (rows + down).clamp_(0, height - 1)[:, None] * width + (cols + right).clamp_(0, width - 1)
        columns[:, i] = ends.flatten()
    starts = torch.arange(0, affinity.numel() + 1, neighbours, dtype=kind)
    return SparseGraph.of(starts, columns.flatten(), affinity.flatten(1).T.flatten())


def _by_shifts(scores: Tensor, affinity: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """As ``pamr``, on devices that may lack sparse matrices."""
    scores = scores[None]
    for _ in range(iterations):
        refined = torch.zeros_like(scores)
        for weight, neighbour in zip(affinity, _neighbours(scores, dilations)):
            refined.addcmul_(neighbour, weight)
        scores = refined
    return scores[0]
