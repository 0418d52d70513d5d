"""CLIP's text transformer (Radford et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ovseg.towers.layers import BlockConfig, Transformer

__all__ = ["TextConfig", "TextTransformer"]


@dataclass(frozen=True)
class TextConfig:
    """Architecture of a CLIP text tower.

    Attributes:
        blocks: Width, depth, heads, activation, epsilon.
        vocab_size: Rows of the token embedding.
        context_length: Rows of the position table: the longest prompt.
        output_dim: Dimension of the joint space.
        pool: Which token is the text embedding: ``argmax`` the highest id (CLIP's end of text), ``eos`` the
            first token with id ``eos_id``, ``last`` the last position (CLIPA).
        eos_id: Only for ``pool="eos"``.
        causal: Whether a token sees only earlier ones (all but CLIPA).
    """

    blocks: BlockConfig
    vocab_size: int
    context_length: int
    output_dim: int
    pool: Literal["argmax", "eos", "last"] = "argmax"
    eos_id: int = 2
    causal: bool = True


class TextTransformer(nn.Module):
    """CLIP text tower with open_clip's parameter names."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.blocks.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.transformer = Transformer(config.blocks)
        self.ln_final = nn.LayerNorm(width, eps=config.blocks.ln_eps)
        self.text_projection = nn.Parameter(torch.empty(width, config.output_dim))
        nn.init.normal_(self.text_projection, std=width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)

    def end_positions(self, tokens: Tensor) -> Tensor:
        """(B,) position of the token that is read out, for token ids (B, L)."""
        if self.config.pool == "argmax":
            return tokens.argmax(dim=-1)
        if self.config.pool == "eos":
            return (tokens == self.config.eos_id).int().argmax(dim=-1)
        return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Text embeddings (B, C), not normalised.

        A causal tower is run only up to the last end-of-text position of the batch: what follows cannot reach
        the token that is read out, so the result is the same. (Under ``torch.compile`` all positions are run:
        a length that depends on the data would break the graph.)

        Args:
            tokens: (B, L) integer ids, L at most ``context_length``.

        Raises:
            ValueError: L is over the context length.
        """
        if tokens.shape[1] > self.config.context_length:
            raise ValueError(
                f"{tokens.shape[1]} tokens, but the tower's context length is "
                f"{self.config.context_length}; shorten the prompt"
            )
        ends = self.end_positions(tokens)
        if self.config.causal and len(tokens) and not torch.compiler.is_compiling():
            tokens = tokens[:, : int(ends.max()) + 1]
        x = self.token_embedding(tokens)
        x = x + self.positional_embedding[: tokens.shape[1]].to(x.dtype)
        x = self.transformer(x, causal=self.config.causal)
        x = x[torch.arange(len(x), device=x.device), ends]
        return self.ln_final(x) @ self.text_projection
