"""Regions: 1,000 boxes of an 800 x 1216 image embedded by CLIP's RN50, and scored for LVIS' 1,203 classes.

The reference embeds as RegionCLIP's code does: last stage, then the pool's attention with keys and values of
all positions, 100 regions at a time. It scores by the bare matrix product, without norms and softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ovseg.benchmark.harness import compare, max_difference
from ovseg.regions.classify import region_logits, region_scores
from ovseg.regions.embed import embed_by_pool
from ovseg.towers.clip import architecture
from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig

__all__ = ["run"]

_SIZE = (800, 1216)
_REGIONS = 1000
_CLASSES = 1203
_AT_ONCE = 100


def _boxes(count: int) -> Tensor:
    """Sides from 16 to 600 pixels, small ones more often, as an RPN gives them."""
    generator = torch.Generator().manual_seed(0)
    sides = 16 * (600 / 16) ** torch.rand(count, 2, generator=generator)
    room = torch.tensor([_SIZE[1], _SIZE[0]]) - sides
    corner = torch.rand(count, 2, generator=generator) * room
    return torch.cat([corner, corner + sides], dim=1)


def _reference(tower: ModifiedResNet, maps: Tensor, boxes: Tensor) -> Tensor:
    parts = []
    for chunk in boxes.split(_AT_ONCE):
        regions = tower.layer4(roi_align(maps, [chunk], 14, 1 / 16, sampling_ratio=-1, aligned=True))
        tokens = tower.attnpool.tokens(regions, "bicubic")
        parts.append(tower.attnpool.attend(tokens[:, :1], tokens)[:, 0])
    return torch.cat(parts)


def _embed(tower: ModifiedResNet) -> dict[str, Any]:
    """A hundred regions of ours, the same hundred of the reference, and so on: what else the machine does
    slows both alike."""
    maps = tower.stage3(torch.randn(1, 3, *_SIZE))
    blocks = _boxes(_REGIONS).split(_AT_ONCE)
    order = [blocks[0], *blocks]  # the first is done twice: once to warm up
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    sides = (lambda own: embed_by_pool(tower, maps, [own]), lambda own: _reference(tower, maps, own))

    def side(i: int) -> Callable[[], Tensor]:
        left = iter(order)

        def step() -> Tensor:
            found[i].append(sides[i](next(left)))
            return found[i][-1]

        return step

    measured = compare(
        "regions.embed",
        side(0),
        side(1),
        repeats=len(blocks),
        regions=_REGIONS,
        at_once=_AT_ONCE,
        image=list(_SIZE),
    )
    return {**measured, "difference": max_difference(*(torch.cat(parts[1:]) for parts in found))}


def _score(dimension: int) -> dict[str, Any]:
    """From embeddings to probabilities of classes, against the matrix product alone."""
    regions = torch.randn(_REGIONS, dimension)
    plain = F.normalize(torch.randn(_CLASSES, dimension), dim=1)
    rows, own = F.pad(plain, (0, 0, 0, 1)), torch.arange(_CLASSES)
    scaled = 100 * F.normalize(regions, dim=1)

    def difference(ours: Tensor, product: Tensor) -> float:
        return max_difference(ours, F.pad(product, (0, 1)).softmax(dim=1)[:, :-1])

    return compare(
        "regions.score",
        lambda: region_scores(region_logits(regions, rows, 100.0), own, _CLASSES)[:, :-1],
        lambda: scaled @ plain.T,
        repeats=51,
        difference=difference,
        regions=_REGIONS,
        classes=_CLASSES,
    )


@torch.inference_mode()
def run() -> Iterator[dict[str, Any]]:
    """Yields ``regions.embed`` and ``regions.score``."""
    torch.manual_seed(0)
    config = architecture("RN50").vision
    assert isinstance(config, ResNetConfig)
    yield _embed(ModifiedResNet(config).eval())
    yield _score(config.output_dim)
