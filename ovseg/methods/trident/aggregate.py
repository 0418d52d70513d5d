"""Trident's last step: features of the whole image, averaged by SAM's attention."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.operators import row_blocks

__all__ = ["Encoding", "aggregate"]

_CAP = 0.9  # of the threshold: a patch is always as similar to itself


class Encoding(Protocol):
    """What is needed of SAM's last block; ``SamEncoding`` has it."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) patches of the image."""

    @property
    def values(self) -> Tensor:
        """(heads, h * w, d)."""

    def weights(self, rows: slice) -> Tensor:
        """(heads, n, h * w) attention after its softmax, of some queries."""


def aggregate(
    tokens: Tensor, encoding: Encoding, cos_factor: float, negative_threshold: float | None
) -> Tensor:
    """Each patch takes the mean of all, weighted by SAM's attention where SAM's values are alike.

    Args:
        tokens: (N, D) on the grid of the encoding.
        encoding: Of the image.
        cos_factor: A pair counts in a head where the cosine of the values exceeds this times the query's mean
            cosine over heads and keys, but at most 0.9.
        negative_threshold: Takes the place of negative thresholds; None: they stay.

    Returns:
        (N, D).
    """
    exact = tokens.to(torch.promote_types(tokens.dtype, torch.float32))  # thresholds are no place for halves
    unit = F.normalize(encoding.values.to(exact.dtype), dim=2)  # (heads, N, d)
    mean = (unit @ unit.mean(dim=1)[:, :, None]).mean(dim=(0, 2))  # (N,), needs no N x N cosines
    threshold = cos_factor * mean
    if negative_threshold is not None:
        threshold = torch.where(threshold < 0, negative_threshold, threshold)
    threshold = threshold.clamp(max=_CAP)
    heads, count, _ = unit.shape
    fused = []
    for rows in row_blocks(count, heads * count):
        alike = unit[:, rows] @ unit.transpose(1, 2)
        torch.gt(alike, threshold[rows, None], out=alike)  # 0 and 1 in floats: booleans are slow to multiply
        alike.diagonal(rows.start, dim1=1, dim2=2).fill_(1)
        weights = (encoding.weights(rows).to(exact.dtype) * alike).mean(dim=0)
        fused.append(weights @ exact / weights.sum(dim=1, keepdim=True))
    return torch.cat(fused).to(tokens.dtype)
