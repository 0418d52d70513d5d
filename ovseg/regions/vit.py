"""Regions of a ViT as RegionCLIP sees those of a ResNet: the last blocks run on each of them.

The paper has ResNets only: a region is cut from the third stage, and the last stage and the attention pool
run on it. Here the tokens behind some block are cut into regions, and the blocks that follow run on each,
with a class token that becomes the embedding as the pool's query does. Positions need no treatment: the
tokens brought theirs along.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.regions.embed import embed_crops, region_maps
from ovseg.towers.clip_vit import VisionTransformer

__all__ = [
    "CELLS",
    "CropTeacher",
    "RegionRegressor",
    "ViTRegions",
    "embed_by_blocks",
    "pool_by_blocks",
    "shared_tokens",
]

CELLS = 6
"""A side of a region: with more the embedded tower names no more regions right, and each costs more."""

_REGIONS_AT_ONCE = 64


def shared_tokens(visual: VisionTransformer, image: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """What the first blocks make of normalised images (B, 3, H, W).

    Args:
        visual: The tower.
        image: The images.
        first: Number of blocks.

    Returns:
        Tokens (B, D, h, w) and the class token (B, D).
    """
    x = visual.embed(image, "bicubic")
    for block in visual.blocks[:first]:
        x = block(x)
    return x[:, 1:].transpose(1, 2).unflatten(2, visual.grid_of(image)), x[:, 0]


def pool_by_blocks(visual: VisionTransformer, regions: Tensor, token: Tensor, first: int) -> Tensor:
    """The blocks behind the first ones on each region.

    Args:
        visual: The tower.
        regions: (N, D, s, s) tokens.
        token: (D,) the class token that stands before each.
        first: Number of blocks that the tokens have been through.

    Returns:
        (N, C), not normalised.
    """
    parts = []
    for part in regions.split(_REGIONS_AT_ONCE):
        tokens = part.flatten(2).transpose(1, 2)  # (n, s * s, D)
        x = torch.cat([token.to(tokens).expand(len(tokens), 1, -1), tokens], dim=1)
        for block in visual.blocks[first:]:
            x = block(x)
        parts.append(visual.tail(x[:, 0]))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def embed_by_blocks(
    visual: VisionTransformer,
    maps: Tensor,
    boxes: Sequence[Tensor],
    token: Tensor,
    first: int,
    size: int = CELLS,
) -> Tensor:
    """A for ViTs: embeddings (sum N_b, C) of boxes on the maps of ``shared_tokens``; see ``region_maps``.

    ``size`` is the number of cells a side of a region.
    """
    return pool_by_blocks(visual, region_maps(maps, boxes, size, visual.stride), token, first)


class ViTRegions(nn.Module):
    """A ViT split for regions, to be trained.

    Args:
        visual: The tower; its parameters are used, not copied.
        first: Number of blocks that run on whole images.
        size: Cells a side of a region.

    Attributes:
        token: (D,) the regions' class token. It starts as what the first blocks make of the tower's own in a
            grey image.

    Raises:
        ValueError: The tower has no more blocks than that.
    """

    def __init__(self, visual: VisionTransformer, first: int, size: int = CELLS) -> None:
        super().__init__()
        if not 0 < first < len(visual.blocks):
            raise ValueError(f"first={first}, but the tower has {len(visual.blocks)} blocks to split")
        self.visual, self.first, self.size = visual, first, size
        with torch.no_grad():
            grey = visual.proj.new_zeros(1, 3, *visual.config.image_size)
            self.token = nn.Parameter(shared_tokens(visual, grey, first)[1][0].clone())

    def freeze(self) -> None:
        """What whole images run through is fixed, as stem and first stage are in RegionCLIP's fine-tuning."""
        self.requires_grad_(False)
        for part in (*self.visual.blocks[self.first :], self.visual.ln_post):
            part.requires_grad_(True)
        self.visual.proj.requires_grad_(True)
        self.token.requires_grad_(True)

    def maps(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to tokens (B, D, h, w)."""
        return shared_tokens(self.visual, image, self.first)[0]

    def pool(self, regions: Tensor) -> Tensor:
        """Tokens of regions (N, D, s, s) to embeddings (N, C), not normalised."""
        return pool_by_blocks(self.visual, regions, self.token, self.first)

    def embed(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Embeddings (sum N_b, C) of boxes on ``maps``, not normalised."""
        return embed_by_blocks(self.visual, maps, boxes, self.token, self.first, self.size)


class RegionRegressor(nn.Linear):
    """Moves a box by the tokens in it, each in its place.

    A linear layer on the embedding, as after a ResNet's pool, learns nothing here: the class token sees
    tokens that do not say where in the region they lie.

    Args:
        channels: D of the tokens.
        size: Cells a side of a region.
        width: Of the hidden layer.
    """

    def __init__(self, channels: int, size: int = CELLS, width: int = 128) -> None:
        super().__init__(width, 4)
        self.hidden = nn.Linear(channels * size**2, width)

    def forward(self, regions: Tensor) -> Tensor:
        """Tokens (N, D, s, s) to moves (N, 4): dx, dy, dw, dh."""
        tokens = F.layer_norm(regions.movedim(1, -1), regions.shape[1:2])
        return super().forward(self.hidden(tokens.flatten(1)).relu())


class CropTeacher(nn.Module):
    """A CLIP that sees each region as an image of its own.

    A ViT was trained on whole images and tells those apart best; a ResNet's pool needs no such detour.

    Args:
        visual: The tower; fixed here.
        size: Pixels of a crop's side.
    """

    def __init__(self, visual: VisionTransformer, size: int) -> None:
        super().__init__()
        self.visual, self.size = visual.requires_grad_(False), size

    def maps(self, image: Tensor) -> Tensor:
        """The images themselves."""
        return image

    def embed(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Unit embeddings (sum N_b, C) of boxes in normalised images (B, 3, H, W)."""
        parts = [
            embed_crops(self.visual, image, own, self.size, at_once=_REGIONS_AT_ONCE)
            for image, own in zip(maps, boxes)
            if len(own)
        ]
        return torch.cat(parts) if parts else maps.new_zeros(0, self.visual.config.output_dim)
