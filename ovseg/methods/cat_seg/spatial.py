"""Spatial aggregation: the cost embedding of each class, as an image of its own (section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.methods.cat_seg.chunks import over_chunks
from ovseg.methods.cat_seg.linear import MLP, Linear, linear
from ovseg.methods.cat_seg.windows import Windows, windows_of

__all__ = ["SpatialAggregation"]


class SpatialAggregation(nn.Module):
    """A regular and a shifted window block (Swin, without relative positions), guided by the image.

    Args:
        width: Channels C of the cost embedding.
        guidance: Channels G of the image guidance.
        heads: Attention heads.
        window: Cells along the side of a window.
    """

    def __init__(self, width: int, guidance: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.guidance_norm = nn.LayerNorm(guidance)
        self.regular = WindowBlock(width, guidance, heads)
        self.shifted = WindowBlock(width, guidance, heads)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Cost embeddings (K, h, w, C) of the classes of one image with its guidance (h, w, G)."""
        grid = (x.shape[1], x.shape[2])
        guidance = self.guidance_norm(guidance)
        steps = [
            (block, block.attention.guide(guidance), windows_of(grid, self.window, shifted))
            for block, shifted in ((self.regular, False), (self.shifted, True))
        ]

        def both(part: Tensor) -> Tensor:
            for block, guide, windows in steps:
                part = block(part, guide, windows)
            return part

        return over_chunks(both, x)


class WindowBlock(nn.Module):
    """Pre-norm attention and MLP (GELU) of any number of classes at once."""

    def __init__(self, width: int, guidance: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = GuidedAttention(width, guidance, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, "gelu")

    def forward(self, x: Tensor, guide: Tensor, windows: Windows) -> Tensor:
        """(n, h, w, C) with the guide (h, w, 3 C) of the image."""
        x = self.attention(self.norm1(x), guide, windows, x)
        return self.mlp(self.norm2(x), x)


class GuidedAttention(nn.Module):
    """Attention within windows, whose queries and keys also see the image.

    The reference concatenates the guidance to the tokens of every class before it projects them. The image is
    the same for all classes: a projection of both is the sum of two projections, and that of the guidance
    (``guide``) is computed once.
    """

    def __init__(self, width: int, guidance: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.q = Linear(width + guidance, width)
        self.k = Linear(width + guidance, width)
        self.v = Linear(width, width)
        self.proj = Linear(width, width)

    def guide(self, guidance: Tensor) -> Tensor:
        """(..., G) to what it adds to q, k and v, biases included: (..., 3 C)."""
        q, k = (F.linear(guidance, part.weight[:, self.width :], part.bias) for part in (self.q, self.k))
        return torch.cat([q, k, self.v.bias.expand_as(q)], dim=-1)

    def forward(self, x: Tensor, guide: Tensor, windows: Windows, residual: Tensor) -> Tensor:
        """Normed (n, h, w, C) to the attention's output of the same shape, plus the residual."""
        weight = torch.cat([self.q.weight[:, : self.width], self.k.weight[:, : self.width], self.v.weight])
        qkv = linear(x, weight)
        qkv = qkv + guide if torch.is_grad_enabled() else qkv.add_(guide)
        mixed = windows.join([self._within(part) for part in windows.cut(qkv)])
        return linear(mixed, self.proj.weight, self.proj.bias, residual)

    def _within(self, qkv: Tensor) -> Tensor:
        """(m, n, N, 3 C) of m windows and n classes to (m, n, N, C)."""
        q, k, v = qkv.flatten(0, 1).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (m n, heads, N, d)
        return mixed.transpose(1, 2).reshape(*qkv.shape[:3], -1)
