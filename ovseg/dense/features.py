"""The one dense-feature contract of all towers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DenseFeatures", "Tap", "TapSite"]

TapSite = Literal["out", "ln_1", "ln_2", "q", "k", "v", "scores"]
Tap = tuple[int, str]
"""(block, site). Negative blocks count from the end, as in a list."""


@dataclass(frozen=True)
class DenseFeatures:
    """What a tower returns for a batch of images.

    Attributes:
        patches: (B, C, h, w), not normalised.
        cls: (B, C) the class token, read out the same way, or None where the tower or readout has none.
        stride: Pixels of the input per grid step (the patch size of a ViT).
        space: "joint" after the projection that text embeddings share, "width" before it.
        taps: What was asked for by ``(block, site)``, with the class token first where there is one.
            Sites: ``out`` the block's output, ``ln_1``/``ln_2`` the normed inputs of attention and MLP,
            ``q``/``k``/``v`` the projections with heads concatenated, all (B, N, D); ``scores`` the scaled
            dot products before the softmax, (B, heads, N, N). Keys are as they were asked for.
    """

    patches: Tensor
    cls: Tensor | None
    stride: int
    space: Literal["joint", "width"] = "joint"
    taps: Mapping[Tap, Tensor] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of ``patches``."""
        return self.patches.shape[-2], self.patches.shape[-1]
