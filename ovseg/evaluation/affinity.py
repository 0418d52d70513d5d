"""How well the likeness of a tower's patches tells objects apart: no words, only who lies on which object."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.datasets.emoji import Drawings, EmojiScenes, Scene, Split

__all__ = ["affinity_auc", "colour_features", "patch_affinity"]

_PURE = 0.8  # share of a patch that one object must cover
_SEED = 77


@torch.inference_mode()
def patch_affinity(
    read: Callable[[Tensor], Mapping[str, Tensor]],
    drawings: Drawings,
    split: Split = "val",
    *,
    stride: int = 8,
    scenes: int = 24,
    size: int = 224,
) -> dict[str, float]:
    """Mean over scenes of ``affinity_auc``, in percent, for each kind of features of an image.

    Args:
        read: Turns images (1, 3, S, S) in [0, 1] into features (1, C, h, w) by name.
        drawings: All of them.
        split: Whose drawings.
        stride: Pixels per grid step.
        scenes: Their number.
        size: Pixels of a scene's side.
    """
    found: dict[str, list[float]] = {}
    for scene in EmojiScenes(
        split, ("base", "novel"), size=size, length=scenes, seed=_SEED, drawings=drawings
    ):
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
        objects = _pure_patches(scene, stride)
        if len(objects.unique()) < 3:  # less than two objects and something beside them
            continue
        for name, features in read(image).items():
            found.setdefault(name, []).append(affinity_auc(features[0], objects))
    return {name: 100 * float(np.mean(values)) for name, values in found.items()}


def affinity_auc(features: Tensor, objects: Tensor) -> float:
    """Chance that a patch of an object is more like another patch of it than like one outside: 0.5 to 1.

    Args:
        features: (C, h, w); likeness is their cosine.
        objects: (h, w) number of the object that a patch shows, 0 for the background, -1 for mixed patches.
    """
    unit, owner = F.normalize(features.flatten(1), dim=0), objects.flatten()
    unit, owner = unit[:, owner >= 0], owner[owner >= 0]
    likeness = unit.T @ unit
    areas = []
    for at in (owner > 0).nonzero()[:, 0].tolist():
        same = owner == owner[at]
        other = likeness[at, ~same]
        same[at] = False
        if same.any() and len(other):
            areas.append(float((likeness[at, same][:, None] > other).float().mean()))
    return float(np.mean(areas))


def colour_features(image01: Tensor, stride: int = 8) -> Tensor:
    """Mean colours (B, 4, h, w) on the grid: raised onto a sphere, so that cosines rank as distances do."""
    mean = F.avg_pool2d(image01, stride) - 0.5
    return torch.cat([mean, (1 - mean.square().sum(dim=1, keepdim=True)).sqrt()], dim=1)


def _pure_patches(scene: Scene, stride: int) -> Tensor:
    """(h, w) as ``affinity_auc`` takes it."""
    instances = torch.from_numpy(scene.instances).long()
    shares = F.avg_pool2d(F.one_hot(instances).permute(2, 0, 1)[None].float(), stride)[0]
    share, owner = shares.max(dim=0)
    return torch.where(share >= _PURE, owner, -1)
