"""Class aggregation: all classes at one location (section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.methods.cat_seg.chunks import over_chunks
from ovseg.methods.cat_seg.linear import MLP, Linear, linear

__all__ = ["ClassAggregation"]

_EPS = 1e-6


class ClassAggregation(nn.Module):
    """Attention of the classes to each other, guided by their text embeddings.

    The model was trained with the classes filled up to ``pad_len`` by learned tokens. Nothing is read from
    these tokens; they take part as keys and values, all with the same ones. So they are computed once, and
    count as many times as there are of them.

    Args:
        width: Channels C of the cost embedding.
        guidance: Channels G of the text guidance.
        heads: Attention heads.
        attention: ``linear`` or ``full``.
        pad_len: Number of classes that fewer ones are filled up to; 0 for none.
    """

    def __init__(
        self, width: int, guidance: int, heads: int, attention: Literal["linear", "full"], pad_len: int
    ) -> None:
        super().__init__()
        self.heads, self.width, self.pad_len = heads, width, pad_len
        self.attend = {"linear": linear_attention, "full": full_attention}[attention]
        self.norm1 = nn.LayerNorm(width)
        self.q = Linear(width + guidance, width)
        self.k = Linear(width + guidance, width)
        self.v = Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, "relu")
        if pad_len:
            self.padding_token = nn.Parameter(torch.zeros(width))
            self.padding_guidance = nn.Parameter(torch.zeros(guidance))

    def forward(self, x: Tensor, guidance: Tensor, pooling: tuple[int, int] = (1, 1)) -> Tensor:
        """Cost embeddings (K, h, w, C) of one image, with the text guidance (K, G).

        The residuals are inside the pooled branch, which is added to ``x`` once more, as published.

        Args:
            x: Cost embeddings.
            guidance: Text guidance.
            pooling: Cells per cell of the average pooling before the attention. 2 x 2 in training, 1 x 1 in
                the published evaluation.
        """
        if pooling == (1, 1):
            return x + self._aggregate(x.flatten(1, 2), guidance).view_as(x)
        pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), pooling).permute(0, 2, 3, 1)  # (K, h', w', C)
        y = self._aggregate(pooled.flatten(1, 2), guidance).unflatten(1, pooled.shape[1:3])
        up = F.interpolate(y.permute(0, 3, 1, 2), x.shape[1:3], mode="bilinear", align_corners=True)
        return x + up.permute(0, 2, 3, 1)

    def _aggregate(self, x: Tensor, guidance: Tensor) -> Tensor:
        """(K, l, C) at any number of locations."""
        q_text, k_text = self._text(guidance)
        text = torch.cat([q_text, k_text, self.v.bias.expand_as(q_text)], dim=-1)[:, None]  # (K, 1, 3 C)
        weight = torch.cat([self.q.weight[:, : self.width], self.k.weight[:, : self.width], self.v.weight])
        padding = self._padding(len(x))

        def at(part: Tensor) -> Tensor:
            qkv = linear(self.norm1(part), weight)
            qkv = qkv + text if torch.is_grad_enabled() else qkv.add_(text)
            q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 1, 3, 0, 4)
            mixed = self.attend(q, k, v, *padding).permute(2, 0, 1, 3)  # (K, l, heads, d)
            part = (part.unflatten(-1, (self.heads, -1)) + mixed).flatten(2)
            return self.mlp(self.norm2(part), part)

        return over_chunks(at, x, dim=1, multiple=16)

    def _text(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """What (..., G) adds to queries and keys, biases included."""
        q, k = (F.linear(guidance, part.weight[:, self.width :], part.bias) for part in (self.q, self.k))
        return q, k

    def _padding(self, classes: int) -> tuple[Tensor | None, Tensor | None, int]:
        """Key and value (heads, d) of a padding token, and how many there are beside so many classes."""
        count = max(self.pad_len - classes, 0)
        if not count:
            return None, None, 0
        normed = self.norm1(self.padding_token)
        k = F.linear(normed, self.k.weight[:, : self.width]) + self._text(self.padding_guidance)[1]
        return k.view(self.heads, -1), self.v(normed).view(self.heads, -1), count


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, pad_k: Tensor | None = None, pad_v: Tensor | None = None, count: int = 0
) -> Tensor:
    """Attention with the kernel ``(elu(q) + 1) (elu(k) + 1)`` (Katharopoulos et al., ICML 2020).

    Args:
        q: (l, heads, K, d).
        k: As ``q``.
        v: As ``q``.
        pad_k: (heads, d) a further key.
        pad_v: (heads, d) its value.
        count: How many times it stands there.

    Returns:
        (l, heads, K, d).
    """
    q, k = _feature(q), _feature(k)
    summary, total = k.transpose(-1, -2) @ v, k.sum(dim=-2)  # (l, heads, d, d), (l, heads, d)
    if pad_k is not None and pad_v is not None:
        feature = count * _feature(pad_k)
        summary = summary + feature[..., None] * pad_v[:, None]
        total = total + feature
    return (q @ summary) / (q @ total[..., None] + _EPS)


def _feature(x: Tensor) -> Tensor:
    """elu(x) + 1, without the detour over exp(x) - 1 + 1."""
    low = x.clamp(max=0)
    return low.exp() + x.clamp(min=0) if torch.is_grad_enabled() else low.exp_().add_(x.clamp(min=0))


def full_attention(
    q: Tensor, k: Tensor, v: Tensor, pad_k: Tensor | None = None, pad_v: Tensor | None = None, count: int = 0
) -> Tensor:
    """Softmax attention; ``count`` equal keys are one whose score is raised by log(count).

    See ``linear_attention``.
    """
    if pad_k is None or pad_v is None:
        return F.scaled_dot_product_attention(q, k, v)
    k, v = (torch.cat([x, pad[:, None].expand(len(x), -1, -1, -1)], 2) for x, pad in ((k, pad_k), (v, pad_v)))
    bias = torch.zeros(k.shape[2], device=k.device, dtype=k.dtype)
    bias[-1] = torch.log(torch.tensor(float(count)))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(q.shape[2], -1))
