"""CLIP's ViT in two parts, as Faster R-CNN's C4 variant wants it: before the regions, and on them.

The paper has ResNets only. As it cuts regions from the third stage and runs the fourth and the attention pool
on each, a ViT's tokens are cut behind some block, and the blocks that follow run on each region.
"""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ovseg.models.clip_source import ClipSource, open_clip_source
from ovseg.regions.vit import CELLS, ViTRegions
from ovseg.registry import MODELS
from ovseg.towers.clip_vit import VisionTransformer

__all__ = ["CLIPViTBlocksHead", "CLIPViTC4", "ChannelNorm", "vit_regions"]


def vit_regions(tower: ClipSource, first: int, size: int = CELLS) -> ViTRegions:
    """A copy of a tower, to be trained as ``ViTRegions``.

    Raises:
        ValueError: The tower is a ResNet.
    """
    visual = open_clip_source(tower).model.visual
    if not isinstance(visual, VisionTransformer):
        raise ValueError("this part takes a vit_* tower; for an rn* tower use CLIPResNetC4 and CLIPPoolHead")
    return ViTRegions(copy.deepcopy(visual), first, size)


@MODELS.register_module()
class CLIPViTC4(BaseModule):
    """The first blocks of a CLIP ViT, frozen: one map of tokens.

    Args:
        tower: See ``ClipSource``.
        first: Number of blocks.
    """

    def __init__(self, tower: ClipSource, first: int = 3, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.regions = vit_regions(tower, first)
        for i in range(first, len(self.regions.visual.blocks)):
            self.regions.visual.transformer.resblocks[i] = nn.Identity()
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(B, 3, H, W) normalised images to a map (B, D, h, w)."""
        return (self.regions.maps(image),)


@MODELS.register_module()
class CLIPViTBlocksHead(BaseModule):
    """The last blocks of a CLIP ViT and its projection: the ``shared_head`` of a RoI head.

    Args:
        tower: See ``ClipSource``.
        first: Blocks that ``CLIPViTC4`` has.
    """

    def __init__(self, tower: ClipSource, first: int = 3, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.regions = vit_regions(tower, first)
        for i in range(first):
            self.regions.visual.transformer.resblocks[i] = nn.Identity()
        self.regions.freeze()

    def forward(self, regions: Tensor) -> Tensor:
        """(N, D, s, s) maps of regions to embeddings (N, C)."""
        return self.regions.pool(regions)


@MODELS.register_module()
class ChannelNorm(BaseModule):
    """LayerNorm over the channels of each map, without parameters: a neck between a ViT and an RPN."""

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps (B, D, h, w) of mean 0 and deviation 1 in each place."""
        return tuple(F.layer_norm(m.movedim(1, -1), m.shape[1:2]).movedim(-1, 1) for m in maps)
