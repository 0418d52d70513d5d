"""Affinities applied to features or scores after a tower has run.

None of them holds a patches x patches matrix at once: rows are computed, used and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ovseg._lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pool", "row_blocks"]

_BLOCK_ELEMENTS = 1 << 20  # of an affinity at once: 4 MB stay in the processor's cache


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Ranges of the rows of a (rows, columns) matrix, each small enough to work on at once."""
    step = max(_BLOCK_ELEMENTS // columns, 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def pool(features: Tensor, guide: Tensor, gamma: float | None) -> Tensor:
    """Each position takes the mean of all features, weighted by how alike the guide is there (CLIP-DINOiser).

    Args:
        features: (B, C, h, w) to be averaged.
        guide: (B, E, h, w); its cosine similarities are the weights.
        gamma: Similarities below it, and negative ones, count as zero. None or 0: all count as they are, as
            in the authors' code.

    Returns:
        (B, C, h, w).
    """
    unit = F.normalize(guide.flatten(2), dim=1)  # (B, E, N)
    tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
    batch, _, count = unit.shape
    pooled = []
    for rows in row_blocks(count, batch * count):
        weights = unit[:, :, rows].transpose(1, 2) @ unit  # (B, n, N)
        if gamma:
            weights = weights.masked_fill(weights < max(gamma, 0.0), 0.0)
        pooled.append((weights @ tokens) / (weights.sum(dim=2, keepdim=True) + 1e-6))
    return torch.cat(pooled, dim=1).transpose(1, 2).reshape_as(features)
