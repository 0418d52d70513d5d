"""Classification of ground-truth boxes: how well regions are told apart, without any localisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["BoxTopK", "true_ranks"]


@dataclass
class BoxTopK:
    """Top-k accuracy over boxes, averaged two ways; papers report either, and they differ.

    Attributes:
        classes: K.
        ks: Values of k.
    """

    classes: int
    ks: tuple[int, ...] = (1, 5)
    _right: np.ndarray = field(init=False, repr=False)
    _count: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._right = np.zeros((len(self.ks), self.classes), np.int64)
        self._count = np.zeros(self.classes, np.int64)

    def update(self, ranks: np.ndarray, labels: np.ndarray) -> None:
        """Adds boxes.

        Args:
            ranks: (N,) of the true classes, see ``true_ranks``.
            labels: (N,) true classes.

        Raises:
            ValueError: The numbers differ.
        """
        if ranks.shape != labels.shape:
            raise ValueError(f"{len(labels)} boxes need as many ranks, got {len(ranks)}")
        np.add.at(self._count, labels, 1)
        for row, k in zip(self._right, self.ks):
            np.add.at(row, labels[ranks < k], 1)

    def compute(self, classes: Sequence[int] | None = None) -> dict[str, float]:
        """``top1_macro`` (mean over classes that occur: CLIPSelf), ``top1_micro`` (over boxes: FG-CLIP), ...

        Args:
            classes: Only boxes of these; they still compete with all. By default all.

        Returns:
            Shares, 0 to 1; NaN without boxes.
        """
        chosen = np.zeros(self.classes, bool)
        chosen[slice(None) if classes is None else list(classes)] = True
        there = chosen & (self._count > 0)
        out = {}
        for k, right in zip(self.ks, self._right):
            shares, total = right[there] / self._count[there], self._count[there].sum()
            out[f"top{k}_macro"] = float(shares.mean()) if total else float("nan")
            out[f"top{k}_micro"] = float(right[there].sum() / total) if total else float("nan")
        return out


def true_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) places of the true classes in the order of the scores, 0 being the best.

    Args:
        scores: (N, K). Of equal scores the earlier class counts as the better one.
        labels: (N,) true classes.

    Raises:
        ValueError: The shapes do not fit.
    """
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(f"scores {scores.shape} do not fit {len(labels)} boxes")
    order = np.argsort(-scores, axis=1, kind="stable")
    return (order == labels[:, None]).argmax(axis=1)
