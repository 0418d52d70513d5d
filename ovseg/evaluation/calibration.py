"""Calibration: whether a pixel that the model is 80 % sure of is right 80 % of the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration"]

_BINS = 15  # Guo et al., On Calibration of Modern Neural Networks, 2017
_UNIT = 1 << 20  # probabilities are summed as integers, so that the order of images does not matter


@dataclass(frozen=True)
class Calibration:
    """Counts by probability in 15 bins of equal width, over any number of images; add two with ``+``.

    Attributes:
        pixels: (15,) int64, labelled pixels with a prediction.
        right: (15,) int64, those whose prediction is right.
        probability: (15,) int64, the sum of their probabilities in units of 2^-20.
    """

    pixels: NDArray[np.int64]
    right: NDArray[np.int64]
    probability: NDArray[np.int64]

    @classmethod
    def zeros(cls) -> Calibration:
        """Of no image."""
        return cls(*np.zeros((3, _BINS), np.int64))

    @classmethod
    def count(cls, predicted: NDArray, truth: NDArray, probability: NDArray) -> Calibration:
        """Of one image.

        Args:
            predicted: (H, W) integers; pixels with -1 claim nothing and are left out.
            truth: (H, W) integers, -1 where pixels are left out.
            probability: (H, W) of the predicted class, 0..1.
        """
        counted = (truth >= 0) & (predicted >= 0)
        units = np.rint(probability[counted].astype(np.float64).clip(0, 1) * _UNIT).astype(np.int64)
        bins = np.minimum(units * _BINS // _UNIT, _BINS - 1)
        right = (predicted == truth)[counted]
        sums = [int(units[bins == i].sum()) for i in range(_BINS)]
        pixels, hits = (np.bincount(values, minlength=_BINS) for values in (bins, bins[right]))
        return cls(pixels.astype(np.int64), hits.astype(np.int64), np.array(sums, np.int64))

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            self.pixels + other.pixels, self.right + other.right, self.probability + other.probability
        )

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1: the mean gap between probability and accuracy over all pixels."""
        if not self.pixels.sum():
            return float("nan")
        return float(np.abs(self.probability / _UNIT - self.right).sum() / self.pixels.sum())
