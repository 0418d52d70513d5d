"""CLIP's ResNet in two parts, as Faster R-CNN's C4 variant wants it: before the regions, and on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ovseg.regions.region_clip import freeze_for_regions
from ovseg.registry import MODELS
from ovseg.towers.clip import architecture
from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig

__all__ = ["CLIPPoolHead", "CLIPResNetC4"]


def _tower(arch: str | Mapping[str, Any]) -> ModifiedResNet:
    """The visual tower of an architecture, frozen as in RegionCLIP's fine-tuning.

    Raises:
        ValueError: It is unknown, or a ViT.
    """
    config = ResNetConfig(**arch) if isinstance(arch, Mapping) else architecture(arch).vision
    if not isinstance(config, ResNetConfig):
        raise ValueError(f"{arch!r} is a ViT, which has no stage to cut regions from; name a ResNet (RN50)")
    tower = ModifiedResNet(config)
    freeze_for_regions(tower)
    return tower


class _FrozenNorms(BaseModule):
    """Batch norms keep the statistics they came with, also while the rest trains."""

    def train(self, mode: bool = True) -> _FrozenNorms:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


@MODELS.register_module()
class CLIPResNetC4(_FrozenNorms):
    """Stem and first three stages of a CLIP ResNet: one map of stride 16.

    Args:
        arch: open_clip's name ("RN50", "RN50x4"), or the fields of a ``ResNetConfig``.
    """

    def __init__(self, arch: str | Mapping[str, Any] = "RN50", init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        for name, module in _tower(arch).named_children():
            if name not in ("layer4", "attnpool"):
                self.add_module(name, module)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(B, 3, H, W) normalised images to a map (B, C, H / 16, W / 16)."""
        return (ModifiedResNet.stage3(self, image),)  # type: ignore[arg-type]

    stem = ModifiedResNet.stem


@MODELS.register_module()
class CLIPPoolHead(_FrozenNorms):
    """Last stage and attention pool of a CLIP ResNet: the ``shared_head`` of a RoI head.

    Args:
        arch: As of ``CLIPResNetC4``.
    """

    def __init__(self, arch: str | Mapping[str, Any] = "RN50", init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        tower = _tower(arch)
        self.layer4, self.attnpool = tower.layer4, tower.attnpool

    def forward(self, regions: Tensor) -> Tensor:
        """(N, C, s, s) maps of regions to embeddings (N, D)."""
        return self.attnpool(self.layer4(regions))

    def forward_maps(self, regions: Tensor) -> Tensor:
        """As far as the last stage's maps (N, 2C, s / 2, s / 2), for a mask head."""
        return self.layer4(regions)
