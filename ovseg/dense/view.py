"""One image on its way into a model: resized, cut into windows, normalised batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovseg.dense.windows import WindowGrid

__all__ = ["View"]


@dataclass(frozen=True)
class View:
    """What a model needs to score one image.

    Attributes:
        image: (3, H, W) RGB in [0, 1], resized.
        grid: Its windows.
        output_size: (H', W') in pixels of the result.
        mean: (3,) of the channels.
        std: (3,) of the channels.
        batch_size: Windows per forward.
        dtype: Of the normalised windows.
        source: (H', W', 3) uint8 RGB, the picture before it was resized, for those who look closer.
    """

    image: Tensor
    grid: WindowGrid
    output_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batch_size: int = 1
    dtype: torch.dtype = torch.float32
    source: np.ndarray | None = None

    def normalise(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] to the values that the network sees."""
        mean, std = (
            torch.tensor(values, device=image.device)[:, None, None] for values in (self.mean, self.std)
        )
        return (image - mean) / std

    def batches(self) -> Iterator[Tensor]:
        """Normalised, padded windows (n, 3, h, w), n at most ``batch_size``, in the order of the grid."""
        for crops in self.crops():
            yield self._prepared(crops).to(self.dtype)

    def crops(self) -> Iterator[Tensor]:
        """As ``batches``, but the bare windows in [0, 1]."""
        boxes = list(self.grid.boxes())
        for first in range(0, len(boxes), self.batch_size):
            crops = [
                self.image[:, top:bottom, left:right]
                for top, left, bottom, right in boxes[first : first + self.batch_size]
            ]
            yield torch.stack(crops)

    def _prepared(self, windows: Tensor) -> Tensor:
        pad = self.grid.pad
        if pad is None:
            return self.normalise(windows)
        return self.normalise(pad(windows)) if pad.before_norm else pad(self.normalise(windows))
