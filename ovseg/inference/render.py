"""Drawing results: classes painted over the image, with a legend."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from ovseg.inference.results import pixel_counts

if TYPE_CHECKING:
    from ovseg.inference.legend import LegendEntry
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["overlay", "with_key"]

_SMALLEST = (
    256  # pixels of the long side; smaller images are enlarged, so that a legend fits and eyes can see
)
_STRIP = 1 << 20  # pixels painted at once: bounds the memory of the mixing


def overlay(
    image: np.ndarray,
    label_map: np.ndarray,
    vocabulary: Vocabulary,
    *,
    alpha: float = 0.6,
    contours: bool = True,
    legend: bool = True,
) -> np.ndarray:
    """Paints the classes of an image over it.

    Unlabelled pixels keep the image's brightness and lose half of its colour. Contours are as thin as stays
    visible at the image's size. The legend has the classes that are present, the largest first; it lies below
    a wide image and beside a tall one.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_map: (H, W) int, -1 = unlabelled.
        vocabulary: Names and colours of the labels.
        alpha: Weight of the colours, 0 (image) to 1 (flat colours).
        contours: Draw the borders between classes.
        legend: Add the legend, and enlarge an image of less than 256 pixels (long side) by a whole factor.

    Returns:
        uint8 RGB, (H, W, 3) without a legend, larger with one.

    Raises:
        ValueError: The sizes of image and label map differ, or alpha is out of range.
    """
    if image.shape[:2] != label_map.shape:
        raise ValueError(
            f"the image has {image.shape[0]} x {image.shape[1]} pixels (H x W) but the result "
            f"{label_map.shape[0]} x {label_map.shape[1]}; pass the image that was segmented"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if not legend:
        return _paint(image, label_map, vocabulary.palette, alpha, contours)
    from ovseg.inference.legend import add_legend

    factor = -(-_SMALLEST // max(label_map.shape)) if max(label_map.shape) < _SMALLEST else 1
    picture = _paint(
        _enlarge(image, factor), _enlarge(label_map, factor), vocabulary.palette, alpha, contours
    )
    return add_legend(picture, _entries(label_map, vocabulary))


def with_key(picture: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Adds a legend of all classes without their areas: the same for all pictures of a size."""
    canvas = _key(picture.shape[0], picture.shape[1], vocabulary).copy()
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas


@functools.lru_cache(maxsize=4)
def _key(height: int, width: int, vocabulary: Vocabulary) -> np.ndarray:
    """An empty picture with its legend."""
    from ovseg.inference.legend import LegendEntry, add_legend

    entries = [
        LegendEntry(item.name, f"class {i}", item.colour, None) for i, item in enumerate(vocabulary.classes)
    ]
    return add_legend(np.zeros((height, width, 3), np.uint8), entries)


def _entries(label_map: np.ndarray, vocabulary: Vocabulary) -> list[LegendEntry]:
    from ovseg.inference.legend import LegendEntry

    counts = pixel_counts(label_map, len(vocabulary))
    fractions = counts / label_map.size
    entries = [
        LegendEntry(vocabulary.names[i], f"class {i}", vocabulary.classes[i].colour, fractions[i])
        for i in np.argsort(-counts[:-1], kind="stable")
        if counts[i]
    ]
    if counts[-1]:
        entries.append(LegendEntry("unlabelled", "", None, fractions[-1]))
    return entries


def _enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels if factor == 1 else pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _paint(
    image: np.ndarray, label_map: np.ndarray, palette: np.ndarray, alpha: float, contours: bool
) -> np.ndarray:
    """(H, W, 3) uint8: the image mixed with the palette (K, 3)."""
    height, width = label_map.shape
    thickness = max(1, round((height * width) ** 0.5 / 600))
    weight = round(alpha * 256)
    palette = np.vstack([palette, [[0, 0, 0]]]).astype(np.uint16)  # the last row is found by -1
    painted = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        labels = label_map[strip]
        pixels = image[strip].astype(np.uint16)
        mixed = (pixels * (256 - weight) + palette[labels] * weight) >> 8
        unlabelled = labels < 0
        grey = pixels[unlabelled].mean(axis=1, keepdims=True).astype(np.uint16)
        mixed[unlabelled] = (pixels[unlabelled] + grey) >> 1
        if contours:
            above = min(thickness, top)
            edge = _edges(label_map[top - above : top + rows], thickness)[above:]
            mixed[edge] = (mixed[edge] + 3 * 255) >> 2
        painted[strip] = mixed
    return painted


def _edges(labels: np.ndarray, thickness: int) -> np.ndarray:
    """(H, W) bool: the ``thickness`` pixels to the right of and below each border between labels."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    have = 1
    while have < thickness:
        step = min(have, thickness - have)
        edge[:, step:] |= edge[:, :-step]
        edge[step:] |= edge[:-step]
        have += step
    return edge
