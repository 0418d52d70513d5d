"""CLIP towers as backbones of mmseg's and mmdet's models."""

from ovseg.models.backbones.clip_resnet import CLIPResNet
from ovseg.models.backbones.clip_vit import CLIPViT

__all__ = ["CLIPResNet", "CLIPViT"]
