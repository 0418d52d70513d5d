"""Stands for an auxiliary tower: what the cases store of one."""

from __future__ import annotations

from torch import Tensor

from ovseg.dense.features import DenseFeatures, Tap

__all__ = ["StoredTower"]


class StoredTower:
    """Returns stored features in their order, one for each image that it is asked about, then from the start.

    Args:
        features: (n, C, h, w).
        taps: (n, N, D) each.
        stride: Pixels per grid step.
    """

    def __init__(self, features: Tensor, taps: dict[Tap, Tensor] | None = None, stride: int = 1) -> None:
        self.features, self.taps, self.stride = features, taps or {}, stride
        self._next = 0

    def __call__(self, image01: Tensor, taps: tuple[Tap, ...] = ()) -> DenseFeatures:
        """The next features."""
        chosen = slice(self._next, self._next + len(image01))
        self._next = chosen.stop % len(self.features)
        found = {tap: self.taps[tap][chosen] for tap in taps}
        return DenseFeatures(self.features[chosen], None, self.stride, "width", found)
