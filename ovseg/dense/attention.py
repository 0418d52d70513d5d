"""Attention functions that several methods share, and the parts they are made of.

All take ``(q, k, v, ctx)`` with q, k, v of shape (B, heads, N, d) and return mixed values of v's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ovseg._lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg.dense.readout import AttentionContext

__all__ = [
    "correlative",
    "gaussian_bias",
    "identity",
    "inputs_of",
    "key_key",
    "query_key",
    "query_query",
    "uses",
    "value_value",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def uses(inputs: str) -> Callable[[_Function], _Function]:
    """Marks which projections an attention function reads, e.g. ``@uses("qv")``; others are not computed."""

    def mark(function: _Function) -> _Function:
        function.inputs = inputs  # type: ignore[attr-defined]
        return function

    return mark


def inputs_of(attention: Callable[..., Any]) -> str:
    """Which of "q", "k", "v" an attention function reads; all unless marked with ``uses``."""
    return getattr(attention, "inputs", "qkv")


@uses("qkv")
def query_key(q: Tensor, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
    """softmax(q k^T / sqrt d) v: CLIP's own attention."""
    return F.scaled_dot_product_attention(q, k, v)


@uses("v")
def identity(q: None, k: None, v: Tensor, ctx: AttentionContext) -> Tensor:
    """Each token keeps its own value (MaskCLIP, section 3.2)."""
    return v


@uses("qv")
def query_query(q: Tensor, k: None, v: Tensor, ctx: AttentionContext) -> Tensor:
    """softmax(q q^T / sqrt d) v (ClearCLIP)."""
    return F.scaled_dot_product_attention(q, q, v)


@uses("kv")
def key_key(q: None, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
    """softmax(k k^T / sqrt d) v."""
    return F.scaled_dot_product_attention(k, k, v)


@uses("v")
def value_value(q: None, k: None, v: Tensor, ctx: AttentionContext) -> Tensor:
    """softmax(v v^T / sqrt d) v."""
    return F.scaled_dot_product_attention(v, v, v)


@uses("qkv")
def correlative(q: Tensor, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
    """(softmax(q q^T / sqrt d) + softmax(k k^T / sqrt d)) v: the weights of a token sum to 2 (SCLIP)."""
    return query_query(q, None, v, ctx) + key_key(None, k, v, ctx)


def gaussian_bias(ctx: AttentionContext, std: float, like: Tensor) -> Tensor:
    """How near patches are: exp(-distance^2 / (2 std^2)), to be added to attention logits (NACLIP).

    Args:
        ctx: Gives the grid and the number of tokens before the patches.
        std: Deviation in patches, positive.
        like: Gives device and type.

    Returns:
        (N, N); 1 for a patch and itself, 0 in the rows and columns of the class token.
    """
    axes = []
    for count in ctx.grid:
        steps = torch.arange(count, device=like.device, dtype=torch.float32)
        axes.append(torch.exp(-((steps[:, None] - steps) ** 2) / (2 * std**2)))
    rows, cols = axes
    near = rows[:, None, :, None] * cols[None, :, None, :]  # (h, w, h, w)
    near = near.flatten(2).flatten(0, 1)
    return F.pad(near, (ctx.prefix, 0, ctx.prefix, 0)).to(like.dtype)
