"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020): neighbours of like colour share scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.operators import SparseGraph

__all__ = ["pamr", "pamr_affinity"]

_WORDS = 64  # refined at once, so that an edge is read for all of them
_FEW_WORDS = 16  # on large pictures
_ELEMENTS = 1 << 25  # scores refined at once: 128 MB
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
    count, pixels = len(scores), scores[0].numel() if len(scores) else 0
    order = _phases(scores.shape[1:], math.gcd(*dilations))
    graph, out = _graph(affinity, dilations, order), scores.new_empty(scores.shape)
    place = _inverse(order)
    words = min(max(_ELEMENTS // max(pixels, 1), _FEW_WORDS), _WORDS, max(count, 1))
    parts = [scores.new_empty(pixels, words) for _ in range(2)]
    for first in range(0, len(scores), words):
        chunk = scores[first : first + words].flatten(1)
        old, new = (part.flatten()[: pixels * len(chunk)].view(pixels, -1) for part in parts)
        torch.index_select(new.copy_(chunk.T), 0, order, out=old)
        for _ in range(iterations):
            old, new = graph(old, out=new), old
        out[first : first + words].flatten(1).T.copy_(torch.index_select(old, 0, place, out=new))
    return out


def _phases(size: Sequence[int], step: int) -> Tensor:
    """The numbers of all pixels, those first whose row and column leave no rest when divided by ``step``.

    Neighbours lie whole steps away. In this order they lie near each other in memory too.
    """
    pixels = torch.arange(size[0] * size[1], dtype=torch.int32).view(*size)
    return torch.cat([pixels[i::step, j::step].flatten() for i in range(step) for j in range(step)])


def _inverse(order: Tensor) -> Tensor:
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), dtype=order.dtype)
    return place


def _graph(affinity: Tensor, dilations: Sequence[int], order: Tensor) -> SparseGraph:
    """The affinity as a graph of pixels: one pass over memory a round, where shifts need one for each."""
    neighbours, height, width = affinity.shape
    kind = torch.int32 if affinity.numel() < 2**31 else torch.int64
    place = _inverse(order).to(kind).view(height, width)
    columns = torch.empty(height * width, neighbours, dtype=kind)
    shifts = ((d * dy, d * dx) for d in dilations for dy, dx in _OFFSETS)
    rows, cols = torch.arange(height), torch.arange(width)
    for i, (down, right) in enumerate(shifts):
        ends = place[(rows + down).clamp_(0, height - 1)][:, (cols + right).clamp_(0, width - 1)]
        columns[:, i] = ends.flatten()[order]
    starts = torch.arange(0, affinity.numel() + 1, neighbours, dtype=kind)
    return SparseGraph(starts, columns.flatten(), affinity.flatten(1).T[order].flatten())


def _by_shifts(scores: Tensor, affinity: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """As ``pamr``, on devices that may lack sparse matrices."""
    scores = scores[None]
    for _ in range(iterations):
        refined = torch.zeros_like(scores)
        for weight, neighbour in zip(affinity, _neighbours(scores, dilations)):
            refined.addcmul_(neighbour, weight)
        scores = refined
    return scores[0]
