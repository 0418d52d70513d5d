"""What CLIP-DINOiser learns from: patches that belong together, patches of objects; made or kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg._files import atomic_path
from ovseg.methods.clip_dinoiser.dino import DinoSource, last_block, open_dino
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.clip_dinoiser.training import affinity_target
from ovseg.vocab.cache import weights_hash

__all__ = ["StoredTeachers", "Targets", "Teachers"]

_FORMAT = 1


@dataclass(frozen=True)
class Targets:
    """What the teachers say of a batch.

    Attributes:
        joined: (B, N, N) bool, whether two patches belong together.
        objects: (B, 1, h, w) bool, whether a patch shows an object.
    """

    joined: Tensor
    objects: Tensor


class Teachers:
    """DINO and FOUND on the same images (section 3.2 and 3.3). Frozen, and no module: nothing saves them.

    Args:
        auxiliary: Name of the DINO tower whose similarities are learned, or a tower.
        saliency: From images in [0, 1] to logits (B, 1, h, w) of being an object: ``Found``.
        feature: Which projections of DINO's last block are compared.
        gamma: Least similarity of patches that belong together.
    """

    def __init__(
        self,
        auxiliary: DinoSource,
        saliency: Callable[[Tensor], Tensor],
        feature: Literal["k", "v"] = "v",
        gamma: float | None = 0.2,
    ) -> None:
        self.auxiliary, self.saliency, self.feature, self.gamma = auxiliary, saliency, feature, gamma

    @torch.no_grad()
    def __call__(self, image01: Tensor, grid: tuple[int, int]) -> Targets:
        """Targets for the patches of ``grid`` (rows, columns) of images (B, 3, H, W) in [0, 1]."""
        tower, saliency = open_dino(self.auxiliary, image01), self.saliency
        if isinstance(saliency, Found) and saliency.tower(image01) is tower:  # one pass serves both
            guide, keys = last_block(tower, image01, self.feature, "k")
            logits = saliency.decoder(keys)
        else:
            (guide,), logits = last_block(tower, image01, self.feature), saliency(image01)
        guide, logits = (
            x if x.shape[2:] == grid else F.interpolate(x, grid, mode="bilinear", align_corners=False)
            for x in (guide, logits)
        )
        return Targets(affinity_target(guide, self.gamma) > 0, logits > 0)

    def key(self, device: str | torch.device = "cpu") -> str:
        """Names settings and weights: equal keys give equal targets of equal images."""
        image = torch.zeros(0, device=device)
        networks: list[Any] = [open_dino(self.auxiliary, image), self.saliency]
        if isinstance(self.saliency, Found):
            networks.append(self.saliency.tower(image))
        parts: list[Any] = [_FORMAT, self.feature, self.gamma]
        for network in networks:
            parts.append(weights_hash(network) if isinstance(network, nn.Module) else repr(network))
            parts.append(repr(getattr(network, "info", None)))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


class StoredTeachers:
    """Teachers whose answers are kept: one small file for each image, named after its pixels and the grid.

    Whatever is there already is read; the rest is asked of the teachers and written, each file whole or not
    at all. So targets can be made beforehand, by several processes, and after an interruption. A batch of
    which any part is missing is asked as a whole: its answers are bit-equal to those without a store, where
    batches are the same. A file that cannot be read counts as missing. Deleting the folder is always safe.

    Args:
        teachers: Who is asked.
        folder: Where to; a sub-folder for each ``Teachers.key``.
    """

    def __init__(self, teachers: Teachers, folder: str | os.PathLike[str]) -> None:
        self.teachers, self.root = teachers, Path(folder)
        self._folder: Path | None = None

    def __call__(self, image01: Tensor, grid: tuple[int, int]) -> Targets:
        """See ``Teachers``; images hold multiples of 1 / 255."""
        if self._folder is None:
            self._folder = self.root / self.teachers.key(image01.device)
        pixels = (image01 * 255).round().to(torch.uint8).cpu().numpy()
        paths = [self._path(image, grid) for image in pixels]
        found = [_read(path, grid) for path in paths]
        known = [targets for targets in found if targets is not None]
        if len(known) < len(found):
            targets = self.teachers(image01, grid)
            for i, path in enumerate(paths):
                if found[i] is None:
                    _write(path, targets.joined[i], targets.objects[i])
            return targets
        joined, objects = (torch.from_numpy(np.stack(part)) for part in zip(*known))
        return Targets(joined.to(image01.device), objects.to(image01.device))

    def _path(self, image: np.ndarray, grid: tuple[int, int]) -> Path:
        assert self._folder is not None  # set by the caller
        name = hashlib.sha256(f"{image.shape} {grid} ".encode() + image.tobytes()).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.npz"


def _write(path: Path, joined: Tensor, objects: Tensor) -> None:
    first, second = (np.packbits(x.cpu().numpy()) for x in (joined, objects))
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, joined=first, objects=second)


def _read(path: Path, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """(N, N) and (1, h, w) bool."""
    count = grid[0] * grid[1]
    try:
        with np.load(path, allow_pickle=False) as stored:
            joined = np.unpackbits(stored["joined"], count=count * count).view(bool)
            objects = np.unpackbits(stored["objects"], count=count).view(bool)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return joined.reshape(count, count), objects.reshape(1, *grid)
