"""A CLIP ViT as a backbone: maps of several blocks, on the patch grid or as a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from ovseg.dense.pos_embed import PosEmbedRule
from ovseg.dense.readout import Readout
from ovseg.methods.registry import get_method
from ovseg.models.clip_source import ClipSource, open_clip_source
from ovseg.registry import MODELS
from ovseg.towers.clip_vit import VisionTransformer

__all__ = ["CLIPViT"]


@MODELS.register_module()
class CLIPViT(BaseModule):
    """Outputs of some blocks as maps (B, D, h, w).

    Args:
        tower: See ``ClipSource``.
        out_blocks: Blocks whose outputs are returned, in order; negative ones count from the end.
        strides: Stride of each output in pixels: the maps are resized bilinearly to the image's size over the
            stride. None leaves all on the patch grid, for necks such as mmseg's ``Feature2Pyramid``.
        dense: A method ("maskclip", "clip"): its dense features in the joint space of images and words are
            one more output, (B, C, h, w) on the patch grid, for ``SimilarityHead``.
        frozen: Whether no parameter is trained.
        pos_embed: How positions are resized, see ``ovseg.dense.pos_embed``.
        init_cfg: As in mmengine.

    Raises:
        ValueError: The tower is a ResNet, there is no such block, or not one stride for each block.
    """

    def __init__(
        self,
        tower: ClipSource,
        out_blocks: Sequence[int] = (2, 5, 8, 11),
        strides: Sequence[int] | None = (4, 8, 16, 32),
        dense: str | None = None,
        frozen: bool = False,
        pos_embed: PosEmbedRule = "bicubic_antialias",
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        visual = open_clip_source(tower).model.visual
        if not isinstance(visual, VisionTransformer):
            raise ValueError("CLIPViT takes a vit_* tower; for an rn* tower use CLIPResNet")
        depth = len(visual.blocks)
        if wrong := [i for i in out_blocks if not -depth <= i < depth]:
            raise ValueError(f"out_blocks has {wrong[0]}, but the tower has {depth} blocks")
        if strides is not None and len(strides) != len(out_blocks):
            raise ValueError(f"{len(strides)} strides for {len(out_blocks)} out_blocks; give one for each")
        self.visual, self.out_blocks, self.strides = visual, tuple(out_blocks), strides
        readout = Readout(pos_embed=pos_embed) if dense is None else get_method(dense)().readout
        self.readout = replace(
            readout, taps=tuple(dict.fromkeys([*readout.taps, *((i, "out") for i in out_blocks)]))
        )
        self.dense = dense is not None
        if frozen:
            self.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised images to one map for each block, and the dense features if asked for."""
        features = self.visual.forward_dense(image, self.readout)
        count = features.grid[0] * features.grid[1]
        maps = [
            features.taps[i, "out"][:, -count:].transpose(1, 2).unflatten(2, features.grid)
            for i in self.out_blocks
        ]
        if self.strides is not None:
            height, width = image.shape[2:]
            sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides]
            maps = [
                F.interpolate(m, size, mode="bilinear", align_corners=False) for m, size in zip(maps, sizes)
            ]
        return (*maps, features.patches) if self.dense else tuple(maps)
