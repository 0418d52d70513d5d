"""How a predictor shows an image to its model: resized, cut into windows, on the model's device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.inference.protocol import IMAGENET_MEAN, IMAGENET_STD, Protocol
from ovseg.towers.table import TowerInfo

__all__ = ["Viewer"]

_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class Viewer:
    """What views depend on besides the image and the protocol.

    Attributes:
        info: Of the weights, for their normalisation.
        stride: Of the model, in pixels.
        batch_size: Windows per forward; None for as many as fit some 4000 tokens.
        dtype: Of the windows.
    """

    info: TowerInfo
    stride: int
    batch_size: int | None = None
    dtype: torch.dtype = torch.float32

    def __call__(
        self,
        image: np.ndarray,
        protocol: Protocol,
        device: torch.device,
        whole: bool = False,
        detail: float = 1.0,
    ) -> View:
        """The view of an image (H, W, 3) uint8 RGB, in the protocol's windows or as a whole."""
        chosen, patch = protocol.detailed(detail, self.stride), self.stride
        resized = _unit(chosen.resize(image, patch), device)
        size = (resized.shape[1], resized.shape[2])
        grid = slide(size, None if whole else chosen.crop, chosen.stride, chosen.pad, detail > 1)
        mean, std = self.info.mean, self.info.std
        if chosen.normalisation == "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        tokens = grid.crop[0] * grid.crop[1] // patch**2 + 1
        batch = self.batch_size or max(_TOKENS_PER_BATCH // tokens, 1)
        return View(resized, grid, (image.shape[0], image.shape[1]), mean, std, batch, self.dtype, image)

    @staticmethod
    def guide(view: View, image: np.ndarray) -> Tensor:
        """The image (3, H, W) at the output size in the values that the network sees."""
        return view.normalise(_unit(image, view.image.device))


def _unit(image: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
