"""How dense features are read from the last blocks of a CLIP ViT. A training-free method is a ``Readout``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ovseg.dense.attention import query_key
from ovseg.dense.features import Tap
from ovseg.dense.pos_embed import PosEmbedRule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AttentionContext", "AttentionFunction", "Readout"]


@dataclass(frozen=True)
class AttentionContext:
    """What an attention function may look at besides q, k and v.

    Attributes:
        grid: (h, w) of the patch tokens.
        scale: 1 / sqrt(d), d the head width.
        prefix: Number of tokens before the patches (1 with the class token, else 0).
        tokens: (B, N, D) the normed block input from which q, k and v were projected.
        taps: Taps of earlier blocks, by the keys asked for in ``Readout.taps``.
        extra: What the method's model passes in: features of auxiliary towers, label maps, hyper-parameters.
    """

    grid: tuple[int, int]
    scale: float
    prefix: int = 1
    tokens: Tensor | None = None
    taps: Mapping[Tap, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


AttentionFunction = Callable[..., Any]
"""``attention(q, k, v, ctx)`` with q, k, v (B, heads, N, d); returns the mixed values (B, heads, N, d).

May instead return ``(mixed, grid)`` with patch values on another grid (B, heads, h * w, d) and no class
token; the readout must then have no residual. An attribute ``inputs`` (``ovseg.dense.attention.uses``) names
which of q, k, v it reads; the others are not computed and come as None.
"""


@dataclass(frozen=True)
class Readout:
    """The rewrite of the last block(s) that turns an image encoder into a dense one.

    The default is the plain forward of CLIP.

    Attributes:
        attention: Replaces the softmax attention in the last blocks.
        residual: What is added to the attention's output: ``own`` the token itself, ``cls`` the class token
            for every token (CAT-Seg), ``none``.
        mlp: Whether the block's MLP (with its own residual) follows.
        last_blocks: How many blocks at the end are rewritten.
        stream: ``inplace``: each rewritten block feeds the next. ``parallel``: the plain path goes on
            unchanged and the rewritten outputs of the last blocks are summed (ClearCLIP's
            ``last_n_layers``). ``accumulate``: a second stream starts as the plain stream and collects the
            rewritten outputs as its residual, reading the plain stream (GEM).
        pos_embed: See ``ovseg.dense.pos_embed``.
        taps: Inner activations to return, ``(block, site)``.
        drop_cls: Drop the class token before the rewritten blocks (Trident).
        tail: Apply the last LayerNorm and the projection; else features stay in the tower's width.
    """

    attention: AttentionFunction = query_key
    residual: Literal["own", "cls", "none"] = "own"
    mlp: bool = True
    last_blocks: int = 1
    stream: Literal["inplace", "parallel", "accumulate"] = "inplace"
    pos_embed: PosEmbedRule = "bicubic_antialias"
    taps: tuple[Tap, ...] = ()
    drop_cls: bool = False
    tail: bool = True

    def __post_init__(self) -> None:
        if self.last_blocks < 1:
            raise ValueError(f"last_blocks must be at least 1, got {self.last_blocks}")
        if self.residual not in ("own", "cls", "none"):
            raise ValueError(f"residual must be 'own', 'cls' or 'none', got {self.residual!r}")
        if self.stream not in ("inplace", "parallel", "accumulate"):
            raise ValueError(f"stream must be 'inplace', 'parallel' or 'accumulate', got {self.stream!r}")
        if self.stream == "accumulate" and self.residual != "own":
            raise ValueError("stream='accumulate' collects the rewritten outputs: it needs residual='own'")
        if self.drop_cls and self.residual == "cls":
            raise ValueError("residual='cls' needs the class token; set drop_cls=False")
