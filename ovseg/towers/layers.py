"""Transformer layers with open_clip's parameter names and our own forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg._lazy import import_now
from ovseg.towers.linear import linear

__all__ = ["Activation", "Attention", "Block", "BlockConfig", "LayerScale", "Transformer"]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
_QUICK = 1.702
import_now()  # attention functions are about to be run


@dataclass(frozen=True)
class BlockConfig:
    """Hyper-parameters of the blocks of one transformer.

    Attributes:
        width: Token dimension D.
        layers: Number of blocks.
        heads: Attention heads.
        mlp_width: Hidden dimension of the MLP.
        activation: Belongs to the weights: OpenAI, MetaCLIP and DFN weights need ``quick_gelu``.
        ln_eps: Epsilon of every LayerNorm (1e-5 in CLIP; MaskCLIP's port uses 1e-6).
        layer_scale: Whether blocks carry LayerScale parameters.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation = "gelu"
    ln_eps: float = 1e-5
    layer_scale: bool = False


class Attention(nn.Module):
    """Multi-head attention with ``nn.MultiheadAttention``'s parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of the number of heads {heads}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    @property
    def scale(self) -> float:
        """1 / sqrt(head width)."""
        return (self.in_proj_weight.shape[1] // self.heads) ** -0.5

    def split(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, heads, N, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def qkv(self, x: Tensor, inputs: str = "qkv") -> tuple[Tensor | None, ...]:
        """Projects normed tokens (B, N, D) to q, k, v (B, heads, N, d), or None if not in ``inputs``."""
        width = x.shape[-1]
        if inputs == "qkv":
            joint = linear(x, self.in_proj_weight, self.in_proj_bias)
            return tuple(self.split(part) for part in joint.chunk(3, dim=-1))
        out: list[Tensor | None] = []
        for i, name in enumerate("qkv"):
            rows = slice(i * width, (i + 1) * width)
            if name in inputs:
                part = linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
                out.append(self.split(part))
            else:
                out.append(None)
        return tuple(out)

    def project(self, mixed: Tensor) -> Tensor:
        """Concatenates heads (B, heads, N, d) and applies the output projection: (B, N, D)."""
        return linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _MLP(nn.Module):
    """``c_fc``, activation, ``c_proj``."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        hidden = linear(x, self.c_fc.weight, self.c_fc.bias)
        if self.activation == "quick_gelu":
            hidden = hidden * torch.sigmoid(_QUICK * hidden)
        else:
            approximate = "tanh" if self.activation == "gelu_tanh" else "none"
            hidden = F.gelu(hidden, approximate=approximate)
        return linear(hidden, self.c_proj.weight, self.c_proj.bias)


class Block(nn.Module):
    """Pre-norm block: x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.ln_eps)
        self.attn = Attention(config.width, config.heads)
        self.ls_1 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.ln_2 = nn.LayerNorm(config.width, eps=config.ln_eps)
        self.mlp = _MLP(config.width, config.mlp_width, config.activation)
        self.ls_2 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self._initialise(config.width, config.layers)

    def _initialise(self, width: int, depth: int) -> None:
        """CLIP's initial values (Radford et al., 2021)."""
        nn.init.normal_(self.attn.out_proj.weight, std=(2 * width * depth) ** -0.5)
        nn.init.zeros_(self.attn.out_proj.bias)
        nn.init.normal_(self.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.mlp.c_proj.weight, std=(2 * width * depth) ** -0.5)

    def attend(self, x: Tensor, causal: bool = False) -> Tensor:
        """The attention branch of (B, N, D) tokens, without the residual."""
        q, k, v = self.attn.qkv(self.ln_1(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # type: ignore[arg-type]
        return self.ls_1(self.attn.project(mixed))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The MLP branch, without the residual."""
        return self.ls_2(self.mlp(self.ln_2(x)))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        x = x + self.attend(x, causal)
        return x + self.feed_forward(x)


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.config = config
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        for block in self.resblocks:
            x = block(x, causal)
        return x
