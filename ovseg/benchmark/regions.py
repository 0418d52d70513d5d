"""Regions: 1,000 boxes of an 800 x 1216 image embedded by CLIP's RN50, and scored for LVIS' 1,203 classes.

The reference embeds as RegionCLIP's code does: last stage, then the pool's attention with keys and values of
all positions, 100 regions at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ovseg.benchmark.harness import compare
from ovseg.regions.classify import region_logits
from ovseg.regions.embed import embed_by_pool
from ovseg.towers.clip import architecture
from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig

__all__ = ["run"]

_SIZE = (800, 1216)
_REGIONS = 1000
_CLASSES = 1203


def _boxes(count: int) -> Tensor:
    """Sides from 16 to 600 pixels, small ones more often, as an RPN gives them."""
    generator = torch.Generator().manual_seed(0)
    sides = 16 * (600 / 16) ** torch.rand(count, 2, generator=generator)
    room = torch.tensor([_SIZE[1], _SIZE[0]]) - sides
    corner = torch.rand(count, 2, generator=generator) * room
    return torch.cat([corner, corner + sides], dim=1)


def _reference(tower: ModifiedResNet, maps: Tensor, boxes: Tensor) -> Tensor:
    parts = []
    for chunk in boxes.split(100):
        regions = tower.layer4(roi_align(maps, [chunk], 14, 1 / 16, sampling_ratio=-1, aligned=True))
        tokens = tower.attnpool.tokens(regions, "bicubic")
        parts.append(tower.attnpool.attend(tokens[:, :1], tokens)[:, 0])
    return torch.cat(parts)


@torch.inference_mode()
def run() -> Iterator[dict[str, Any]]:
    """Yields ``regions.embed`` and ``regions.score``."""
    torch.manual_seed(0)
    config = architecture("RN50").vision
    assert isinstance(config, ResNetConfig)
    tower = ModifiedResNet(config).eval()
    maps, boxes = tower.stage3(torch.randn(1, 3, *_SIZE)), _boxes(_REGIONS)
    yield compare(
        "regions.embed",
        lambda: embed_by_pool(tower, maps, [boxes]),
        lambda: _reference(tower, maps, boxes),
        repeats=2,
        regions=_REGIONS,
        image=list(_SIZE),
    )
    regions = torch.randn(_REGIONS, config.output_dim)
    rows = F.pad(F.normalize(torch.randn(_CLASSES, config.output_dim), dim=1), (0, 0, 0, 1))
    unit = F.normalize(regions, dim=1)
    yield compare(
        "regions.score",
        lambda: region_logits(regions, rows, 100.0)[:, :-1],
        lambda: unit @ rows[:-1].T * 100.0,
        repeats=51,
        regions=_REGIONS,
        classes=_CLASSES,
    )
