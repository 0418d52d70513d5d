"""Label maps as connected parts and as polygons, for formats that hold objects or outlines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ovseg._lazy import np

__all__ = ["Part", "paint", "paint_runs", "parts", "polygons"]


class Part(NamedTuple):
    """A connected part of a label (pixels that touch along an edge)."""

    label: int
    top: int
    left: int
    mask: np.ndarray
    """(h, w) bool, within the part's bounding box."""

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the bounding box."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def parts(label_map: np.ndarray) -> Iterator[Part]:
    """The parts of a label map (H, W), by label; those without a label too."""
    from scipy.ndimage import find_objects, label

    for index, box in enumerate(find_objects(label_map + 2)):  # -1 becomes 1; 0 would be passed over
        if box is None:
            continue
        numbered, count = label(label_map[box] == index - 1)
        if count == 0:
            continue
        top, left = box[0].start, box[1].start
        for number, (rows, cols) in enumerate(find_objects(numbered), start=1):
            yield Part(index - 1, top + rows.start, left + cols.start, numbered[rows, cols] == number)


def polygons(label_map: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Outlines of the parts, to be filled one after the other.

    Holes are not cut out: what lies in them comes later and covers them. So the parts without a label that
    are enclosed are among them, with label -1. Filled in this order, on -1, they give the label map exactly.

    Returns:
        (label, points (N, 2) int32 XY, N >= 3, indices of pixels), those that enclose most first.
    """
    import cv2

    found: list[tuple[int, int, np.ndarray]] = []
    height, width = label_map.shape
    for part in parts(label_map):
        h, w = part.mask.shape
        touches = not (part.top and part.left and part.top + h < height and part.left + w < width)
        if part.label < 0 and touches:
            continue
        (outline, *_), _ = cv2.findContours(
            part.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        filled = cv2.drawContours(np.zeros((h, w), np.uint8), [outline], -1, 1, cv2.FILLED)
        points = outline[:, 0] + np.array([part.left, part.top], np.int32)
        if len(points) < 3:  # a pixel or a line; programs expect three points
            points = np.concatenate([points, np.repeat(points[-1:], 3 - len(points), axis=0)])
        found.append((int(filled.sum()), part.label, points))
    found.sort(key=lambda item: -item[0])
    return [(label, points) for _, label, points in found]


def paint(outlines: list[tuple[int, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """The label map (H, W) int32 that ``polygons`` came from."""
    import cv2

    label_map = np.full(size, -1, np.int32)
    for label, points in outlines:
        cv2.drawContours(label_map, [points.astype(np.int32)[:, None]], -1, int(label), cv2.FILLED)
    return label_map


def paint_runs(masks: Iterable[tuple[int, str]], size: tuple[int, int]) -> np.ndarray:
    """The label map (H, W) int32 of labels with COCO's compressed run lengths; later ones cover earlier ones.

    Time grows with the number of runs, not with masks times pixels as where each mask is decoded by itself.
    """
    flat = np.full(size[0] * size[1], -1, np.int32)  # COCO runs down the columns
    for label, text in masks:
        ends = np.cumsum(_run_lengths(text)).tolist()
        for start, end in zip(ends[::2], ends[1::2]):
            flat[start:end] = label
    return np.ascontiguousarray(flat.reshape(size[::-1]).T)


def _run_lengths(text: str) -> list[int]:
    """COCO's code: 5 bits a character, 32 says that more follow, 16 is the sign; from the fourth on, the
    difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        character -= 48
        value |= (character & 31) << shift
        shift += 5
        if character & 32:
            continue
        if character & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
