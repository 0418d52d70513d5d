"""Sizes of CAT-Seg's learned head. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AggregatorConfig"]


@dataclass(frozen=True)
class AggregatorConfig:
    """Architecture of the cost aggregation (section 3.2 and 3.3); the default is the published one.

    Attributes:
        embed_dim: C of the joint space (512 for ViT-B/16, 768 for ViT-L/14).
        width: Channels D of the cost embedding of each class.
        layers: Pairs of a spatial and a class aggregation.
        heads: Attention heads in both.
        window: Cells along the side of a window of the spatial attention.
        attention: Of the classes at one location: ``linear`` (elu + 1 features) or ``full`` (softmax).
        templates: T, prompts per word: the channels of the cost volume.
        appearance_dim: Channels of the projected image features that guide the spatial attention.
        text_dim: Channels of the projected text embeddings that guide the class attention.
        guidance_dims: Channels of the image features that guide the decoder's two stages, on twice and four
            times the grid.
        decoder_guidance_dims: The same, projected.
        decoder_dims: Channels that the two stages of the decoder put out.
        pad_len: Fewer classes than this are filled up with learned tokens in the class attention; of more,
            the best ``pad_len`` of each image are kept. 0: neither.
        residual: So many times the cosine is added to the logits: what is learned corrects the cosines, and
            little training does little harm. 0: not, as published.
    """

    embed_dim: int = 512
    width: int = 128
    layers: int = 2
    heads: int = 4
    window: int = 12
    attention: Literal["linear", "full"] = "linear"
    templates: int = 1
    appearance_dim: int = 128
    text_dim: int = 128
    guidance_dims: tuple[int, int] = (256, 128)
    decoder_guidance_dims: tuple[int, int] = (32, 16)
    decoder_dims: tuple[int, int] = (64, 32)
    pad_len: int = 256
    residual: float = 0.0
