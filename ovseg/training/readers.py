"""How vision towers are read while they are trained: one pass gives image embeddings and dense features.

What differs from the towers' own forward passes is here. A ViT on images smaller than its position table sees
a window of it, and may drop background patches (FLIP, Li et al., 2023); a ResNet needs neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.pos_embed import resize_pos_embed
from ovseg.towers.clip_resnet import ModifiedResNet
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.training.losses import LossWeights, RegionTargets

__all__ = ["PatchDropout", "ResNetReader", "TowerReader", "ViTReader", "reader_of"]


@dataclass(frozen=True)
class PatchDropout:
    """Drops patches of texture to save time.

    Attributes:
        keep: Share of the patches that stay; those that show objects stay first, where masks may be used.
        until: First step with all patches.
    """

    keep: float = 0.64
    until: int = 0


class TowerReader(ABC):
    """Reads a tower in training.

    Attributes:
        paths: Share of the dense losses for each kind of dense features, by name.
    """

    paths: Mapping[str, float]

    def start(self) -> None:  # noqa: B027 (most towers need nothing)
        """Changes the random start, where a short training needs a better one."""

    def kept(self, targets: RegionTargets, step: int, generator: torch.Generator) -> Tensor | None:
        """(B, N) indices of the cells of the grid that stay in a step, or None for all."""
        return None

    @abstractmethod
    def read(
        self, image: Tensor, kept: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embeddings (B, C) of images (B, 3, S, S), and dense features (B, N, C) for each of ``paths``."""


class ViTReader(TowerReader):
    """Dense features as MaskCLIP reads them (value path, residual, MLP), and of the bare value path.

    Args:
        visual: The tower.
        weights: Of the losses.
        dropout: Which patches are dropped.
        interpolate: Share of the steps that see the whole position table, scaled, rather than a window of it.
    """

    def __init__(
        self, visual: VisionTransformer, weights: LossWeights, dropout: PatchDropout, interpolate: float
    ) -> None:
        self.visual, self.dense = visual, weights.dense
        self.dropout, self.interpolate = dropout, interpolate
        shares = {"maskclip": weights.maskclip, "value": 1 - weights.maskclip}
        self.paths = shares if weights.dense else {}

    def start(self) -> None:
        start_positions(self.visual)

    def kept(self, targets: RegionTargets, step: int, generator: torch.Generator) -> Tensor | None:
        if step >= self.dropout.until or self.dropout.keep >= 1:
            return None
        texture = targets.shares[..., 0]  # (B, P)
        order = torch.rand(texture.shape, generator=generator)
        if self.dense:  # a training on pairs must not look at masks
            order = order + (texture < 0.85)
        return order.topk(int(self.dropout.keep * texture.shape[1]), dim=1).indices

    def positions(self, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(1 + h * w, D): a random window of the position table, or now and then all of it, scaled."""
        full, table = self.visual.config.grid, self.visual.positional_embedding
        if torch.rand((), generator=generator) < self.interpolate:
            return resize_pos_embed(table, full, grid, "bicubic_antialias")
        top, left = (int(torch.randint(f - g + 1, (), generator=generator)) for f, g in zip(full, grid))
        window = table[1:].unflatten(0, full)[top : top + grid[0], left : left + grid[1]]
        return torch.cat([table[:1], window.flatten(0, 1)])

    def read(
        self, image: Tensor, kept: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        visual = self.visual
        positions = self.positions(visual.grid_of(image), generator)
        x = visual.embed_patches(image) + positions[1:]
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        cls = (visual.class_embedding + positions[0]).to(x.dtype).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([cls, x], dim=1))
        *blocks, last = visual.blocks
        for block in blocks:
            x = block(x)
        q, k, v = last.attn.qkv(last.ln_1(x))
        mixed = F.scaled_dot_product_attention(q[:, :, :1], k, v)  # type: ignore[index, arg-type]
        cls = x[:, :1] + last.ls_1(last.attn.project(mixed))
        overall = visual.tail(cls + last.feed_forward(cls))[:, 0]
        if not self.dense:
            return overall, ()
        value = last.ls_1(last.attn.project(v[:, :, 1:]))  # type: ignore[index]
        full = x[:, 1:] + value
        return overall, (visual.tail(full + last.feed_forward(full)), visual.tail(value))


class ResNetReader(TowerReader):
    """Dense features through the value and output projections of the attention pool, as MaskCLIP reads them.

    Args:
        visual: The tower.
        weights: Of the losses.
    """

    def __init__(self, visual: ModifiedResNet, weights: LossWeights) -> None:
        self.visual = visual
        self.paths = {"value": 1.0} if weights.dense else {}

    def read(
        self, image: Tensor, kept: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = self.visual.stages(image.contiguous(memory_format=torch.channels_last))[-1]
        pool = self.visual.attnpool
        return pool(maps), tuple(pool.forward_values(maps) for _ in self.paths)


def reader_of(
    visual: VisionTransformer | ModifiedResNet,
    weights: LossWeights,
    dropout: Mapping[str, Any] | None = None,
    interpolate: float | None = None,
) -> TowerReader:
    """The reader of a tower.

    Args:
        visual: The tower.
        weights: Of the losses.
        dropout: Fields of ``PatchDropout``; for ViTs only.
        interpolate: As in ``ViTReader``, 0.3 by default; for ViTs only.

    Raises:
        ValueError: A setting of ViTs is given for a ResNet.
    """
    if isinstance(visual, VisionTransformer):
        interpolate = 0.3 if interpolate is None else interpolate
        return ViTReader(visual, weights, PatchDropout(**dropout or {}), interpolate)
    if dropout is not None or interpolate is not None:
        raise ValueError("'dropout' and 'interpolate' are settings of ViTs; leave them out for a ResNet")
    return ResNetReader(visual, weights)


@torch.no_grad()
def start_positions(visual: VisionTransformer, amplitude: float = 0.6) -> None:
    """Starts the learned positions from two-dimensional sines and cosines.

    From CLIP's random start they take longer to learn than a short training lasts.
    """
    h, w = visual.config.grid
    quarter = visual.config.blocks.width // 4
    speed = 100.0 ** (-torch.arange(quarter) / quarter)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [axis.reshape(-1, 1) * speed for axis in (rows, columns)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    visual.positional_embedding[1:] = amplitude * table
