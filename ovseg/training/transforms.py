"""Augmentations that neither mmcv nor mmseg has."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from ovseg.registry import TRANSFORMS

__all__ = ["RandomBrightness"]


@TRANSFORMS.register_module()
class RandomBrightness(BaseTransform):
    """Multiplies the levels of ``img`` (uint8) by a factor, as torchvision's ``ColorJitter(brightness)``.

    Args:
        amount: The factor lies between ``1 - amount`` (at least 0) and ``1 + amount``.
    """

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Changes ``img``; the factor is drawn from numpy's global generator."""
        factor = np.random.uniform(max(0.0, 1 - self.amount), 1 + self.amount)
        levels = np.arange(256) * factor
        results["img"] = levels.clip(0, 255).astype(np.uint8)[results["img"]]
        return results
