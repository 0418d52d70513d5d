"""DINO's last block as maps: what CLIP-DINOiser's teachers compare, and FOUND's convolution reads."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

from ovseg.towers.auxiliary import AuxiliaryTower, auxiliary_tower
from ovseg.towers.dino import read_taps

__all__ = ["DinoSource", "last_block", "open_dino"]

DinoSource: TypeAlias = "str | AuxiliaryTower"
"""Name of an auxiliary tower, or a tower."""


def open_dino(source: DinoSource, image: Tensor) -> AuxiliaryTower:
    """The tower, by name where an image is and in its precision."""
    return auxiliary_tower(source, image.device, image.dtype) if isinstance(source, str) else source


def last_block(tower: AuxiliaryTower, image01: Tensor, *features: Literal["k", "v"]) -> tuple[Tensor, ...]:
    """Keys or values of the patches, each (B, D, h, w), heads concatenated, of images in [0, 1]."""
    taps = tuple((-1, feature) for feature in features)
    found, grid = read_taps(tower, image01, taps)
    patches = grid[0] * grid[1]
    return tuple(found[tap][:, -patches:].transpose(1, 2).unflatten(2, grid) for tap in taps)
