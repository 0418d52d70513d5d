"""A CLIP ResNet as a backbone: its four stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ovseg.models.clip_source import ClipSource, open_clip_source
from ovseg.registry import MODELS
from ovseg.towers.clip_resnet import ModifiedResNet

__all__ = ["CLIPResNet"]


@MODELS.register_module()
class CLIPResNet(BaseModule):
    """Maps of strides 4, 8, 16 and 32.

    Args:
        tower: See ``ClipSource``.
        out_indices: Stages that are returned, 0 to 3.
        dense: Add the dense features in the joint space of images and words as one more output: each location
            through the attention pool's value path (MaskCLIP), of stride 32, for ``SimilarityHead``.
        frozen: Whether no parameter is trained.
        norm_eval: Whether batch norms keep their statistics while the rest trains.
        init_cfg: As in mmengine.

    Raises:
        ValueError: The tower is a ViT.
    """

    def __init__(
        self,
        tower: ClipSource,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        dense: bool = False,
        frozen: bool = False,
        norm_eval: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        visual = open_clip_source(tower).model.visual
        if not isinstance(visual, ModifiedResNet):
            raise ValueError("CLIPResNet takes an rn* tower; for a vit_* tower use CLIPViT")
        self.visual, self.out_indices, self.dense = visual, tuple(out_indices), dense
        self.norm_eval = norm_eval
        if frozen:
            self.requires_grad_(False)
        elif not dense:
            visual.attnpool.requires_grad_(False)  # it is not used

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised images to one map for each stage, and the dense features if asked for."""
        stages = self.visual.stages(image)
        maps = tuple(stages[i] for i in self.out_indices)
        if not self.dense:
            return maps
        values = self.visual.attnpool.forward_values(stages[-1])
        return (*maps, values.transpose(1, 2).unflatten(2, stages[-1].shape[2:]))

    def train(self, mode: bool = True) -> CLIPResNet:
        """As in torch, but batch norms stay in evaluation mode with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self
