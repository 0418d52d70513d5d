"""Mean IoU and its relatives from sums over pixels: exact for any number of classes, in memory of O(K).

The areas of two images, or of two processes, add up. So results do not depend on how the images are shared
out, and a run that was interrupted goes on from the sums of the images it has done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassAreas", "boundary_areas", "harmonic_mean", "on_boundary"]

_BOUNDARY_SHARE = 0.02  # of the image's diagonal (Cheng et al., section 4)


@dataclass(frozen=True)
class ClassAreas:
    """Pixel counts of K classes over any number of images; add two with ``+``.

    Attributes:
        intersection: (K,) int64, pixels whose label and prediction are the class.
        predicted: (K,) int64, labelled pixels whose prediction is the class.
        labelled: (K,) int64, pixels whose label is the class.
    """

    intersection: NDArray[np.int64]
    predicted: NDArray[np.int64]
    labelled: NDArray[np.int64]

    @classmethod
    def zeros(cls, num_classes: int) -> ClassAreas:
        """Of no image."""
        return cls(*np.zeros((3, num_classes), np.int64))

    @classmethod
    def count(cls, predicted: NDArray, truth: NDArray, num_classes: int) -> ClassAreas:
        """Of one image.

        Args:
            predicted: (H, W) integers, -1 where no class was given: an error wherever there is a label.
            truth: (H, W) integers, -1 where pixels are left out.
            num_classes: K; no value may reach it.
        """
        counted = truth >= 0
        return cls._of_pixels(predicted[counted], truth[counted], num_classes)

    @classmethod
    def _of_pixels(cls, predicted: NDArray, truth: NDArray, num_classes: int) -> ClassAreas:
        """Of pixels that all count; -1 is "no class" in both."""
        hit = (predicted == truth) & (truth >= 0)
        return cls(
            _histogram(truth[hit], num_classes),
            _histogram(predicted[predicted >= 0], num_classes),
            _histogram(truth[truth >= 0], num_classes),
        )

    def __add__(self, other: ClassAreas) -> ClassAreas:
        return ClassAreas(
            self.intersection + other.intersection,
            self.predicted + other.predicted,
            self.labelled + other.labelled,
        )

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) in 0..1; NaN for a class that is neither labelled nor predicted anywhere."""
        return _ratio(self.intersection, self.predicted + self.labelled - self.intersection)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(K,) share of each class's pixels that were found; NaN where it is not labelled anywhere."""
        return _ratio(self.intersection, self.labelled)

    @property
    def pixel_accuracy(self) -> float:
        """Share of all labelled pixels that are right; NaN if there is none."""
        return float(_ratio(self.intersection.sum(), self.labelled.sum()))

    @property
    def mean_accuracy(self) -> float:
        """Mean of ``accuracy`` over the classes that have one."""
        return _mean(self.accuracy)

    def mean_iou(self, classes: Sequence[int] | None = None) -> float:
        """Mean IoU over the classes that are labelled or predicted somewhere, as mmseg's IoUMetric has it.

        Args:
            classes: Only these; all by default.

        Returns:
            0..1, or NaN if no class qualifies.
        """
        return _mean(self.iou if classes is None else self.iou[list(classes)])

    def mean_iou_of_labelled(self) -> float:
        """Mean IoU over the classes that are labelled somewhere: for single images, where a stray pixel of
        one more class would weigh as much as a missed object."""
        return _mean(self.iou[self.labelled > 0])


def boundary_areas(predicted: NDArray, truth: NDArray, num_classes: int) -> ClassAreas:
    """Areas of the inner boundaries of one image's regions: their IoU is Boundary IoU (Cheng et al., 2021).

    A region's boundary is what lies within 2 % of the image's diagonal from its contour, the image's edge
    included. Arguments as in ``ClassAreas.count``.
    """
    reach = max(round(_BOUNDARY_SHARE * math.hypot(*truth.shape)), 1)
    counted = truth >= 0
    inner_predicted, inner_truth = (
        np.where(on_boundary(labels, reach), labels, -1)[counted] for labels in (predicted, truth)
    )
    return ClassAreas._of_pixels(inner_predicted, inner_truth, num_classes)


def on_boundary(labels: NDArray, reach: int) -> NDArray[np.bool_]:
    """(H, W) whether another label, or the image's edge, lies within ``reach`` pixels in a square around.

    For every class at once this is what eroding each class's mask ``reach`` times by 3 x 3 would leave over:
    a square holds two labels exactly where its minimum is not its maximum.
    """
    import cv2

    values = labels.astype(np.float32)  # exact below 2^24 classes
    kernel = np.ones((2 * reach + 1, 1), np.uint8)
    low = high = cv2.copyMakeBorder(values, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=-2)
    for side in (kernel, kernel.T):
        low, high = cv2.erode(low, side), cv2.dilate(high, side)
    inside = (slice(reach, -reach), slice(reach, -reach))
    return low[inside] != high[inside]


def harmonic_mean(values: Iterable[float]) -> float:
    """Of shares; 0 if one is 0, NaN if one is NaN."""
    numbers = np.array(list(values), np.float64)
    return 0.0 if (numbers == 0).any() else float(len(numbers) / (1 / numbers).sum())


def _histogram(values: NDArray, num_classes: int) -> NDArray[np.int64]:
    return np.bincount(values, minlength=num_classes).astype(np.int64, copy=False)


def _ratio(part: NDArray | np.int64, whole: NDArray | np.int64) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.true_divide(part, whole)


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
