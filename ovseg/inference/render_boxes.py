"""Drawing detections: boxes and masks in the colours of their classes, names that do not hide each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ovseg.inference.fonts import FontChain, shorten

if TYPE_CHECKING:
    from PIL import ImageDraw

    from ovseg.inference.legend import LegendEntry
    from ovseg.inference.results import DetResult

__all__ = ["draw_detections", "place_tags"]

_SMALLEST = 512  # pixels of the long side; smaller images are enlarged, so that names fit
_MASK_ALPHA = 0.45
_LONGEST = 14  # letters of a tag, in widths of its text size

Rectangle = tuple[int, int, int, int]


def draw_detections(image: np.ndarray, result: DetResult, *, legend: bool = True) -> np.ndarray:
    """Draws boxes, the best on top.

    Each box has a tag with name and score where there is room for it: on its edge, never over another tag, so
    that fifty boxes stay readable. What has no tag is told by its colour in the legend.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: Of an image of this size.
        legend: Add names and numbers, and enlarge an image of less than 512 pixels (long side).

    Returns:
        uint8 RGB, (H, W, 3) without a legend, larger with one.

    Raises:
        ValueError: The sizes differ.
    """
    from PIL import Image, ImageDraw

    if image.shape[:2] != result.size:
        raise ValueError(
            f"the image has {image.shape[0]} x {image.shape[1]} pixels (H x W) but the result "
            f"{result.size[0]} x {result.size[1]}; pass the image that was searched"
        )
    factor = max(1, -(-_SMALLEST // max(result.size))) if legend else 1
    pixels = _with_masks(image, result).repeat(factor, axis=0).repeat(factor, axis=1)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    height, width = pixels.shape[:2]
    line = max(2, round((height * width) ** 0.5 / 400))
    order = np.argsort(result.scores, kind="stable")
    boxes = [_rectangle(box, factor, (height, width)) for box in result.boxes]
    colours = [result.vocabulary.classes[label].colour for label in result.labels]
    for i in order:
        draw.rectangle(_grown(boxes[i], 1), outline=_ink(colours[i]), width=line + 2)
        draw.rectangle(boxes[i], outline=colours[i], width=line)
    _draw_tags(draw, result, boxes, [int(i) for i in order[::-1]], (height, width))
    picture = np.asarray(canvas)
    if not legend or not len(result):
        return picture
    from ovseg.inference.legend import add_legend

    return add_legend(picture, _entries(result))


def _with_masks(image: np.ndarray, result: DetResult) -> np.ndarray:
    if result.masks is None:
        return image
    mixed = image.copy()
    for i in np.argsort(result.scores, kind="stable"):
        inside = result.masks[i]
        colour = np.array(result.vocabulary.classes[result.labels[i]].colour)
        mixed[inside] = (1 - _MASK_ALPHA) * image[inside] + _MASK_ALPHA * colour
    return mixed


def _rectangle(box: np.ndarray, factor: int, size: tuple[int, int]) -> Rectangle:
    x1, y1, x2, y2 = (round(float(value) * factor) for value in box)
    return x1, y1, max(min(x2, size[1]) - 1, x1), max(min(y2, size[0]) - 1, y1)


def _grown(box: Rectangle, by: int) -> Rectangle:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever stands out from a colour."""
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (16, 16, 16) if light > 140 else (250, 250, 250)


def _draw_tags(
    draw: ImageDraw.ImageDraw,
    result: DetResult,
    boxes: list[Rectangle],
    order: list[int],
    size: tuple[int, int],
) -> None:
    """Tags of the boxes in ``order``."""
    text = max(11, round(0.016 * (size[0] * size[1]) ** 0.5))
    fonts = FontChain(text)
    tags = []
    for i in order:
        item = result.vocabulary.classes[result.labels[i]]
        name, font = fonts.choose(item.name, f"class {result.labels[i]}")
        words = f"{shorten(name, font, _LONGEST * text)} {result.scores[i]:.2f}"
        tags.append((words, font, item.colour))
    extents = [(round(font.getlength(words)) + text // 2, round(1.35 * text)) for words, font, _ in tags]
    places = place_tags([boxes[i] for i in order], extents, size)
    for (words, font, colour), place in zip(tags, places):
        if place is not None:
            draw.rectangle(place, fill=colour)
            middle = (place[1] + place[3]) / 2
            draw.text((place[0] + text // 4, middle), words, _ink(colour), font, anchor="lm")


def place_tags(
    boxes: list[Rectangle], extents: list[tuple[int, int]], size: tuple[int, int]
) -> list[Rectangle | None]:
    """Puts each tag on the first place at its box that is free.

    Args:
        boxes: XYXY, inclusive, the most important first.
        extents: (width, height) of their tags.
        size: (H, W) of the picture.

    Returns:
        XYXY, inclusive; None where no place is free.
    """
    places: list[Rectangle | None] = []
    for box, extent in zip(boxes, extents):
        taken = [place for place in places if place is not None]
        places.append(next((p for p in _places(box, extent, size) if not _meets(p, taken)), None))
    return places


def _places(box: Rectangle, extent: tuple[int, int], size: tuple[int, int]) -> list[Rectangle]:
    """Where a tag may stand: above the box, below it, inside at its corners; always inside the image."""
    x1, y1, x2, y2 = box
    width, height = extent
    corners = [
        (x, y) for y in (y1 - height, y1, y2 - height, y2) for x in (x1, x2 - width, (x1 + x2 - width) // 2)
    ]
    inside = [
        (min(max(x, 0), max(size[1] - width, 0)), min(max(y, 0), max(size[0] - height, 0)))
        for x, y in corners
    ]
    return [(x, y, x + width - 1, y + height - 1) for x, y in inside]


def _meets(place: Rectangle, taken: list[Rectangle]) -> bool:
    x1, y1, x2, y2 = place
    return any(x1 <= b[2] and b[0] <= x2 and y1 <= b[3] and b[1] <= y2 for b in taken)


def _entries(result: DetResult) -> list[LegendEntry]:
    from ovseg.inference.legend import LegendEntry

    labels, counts = np.unique(result.labels, return_counts=True)
    classes = result.vocabulary.classes
    return [
        LegendEntry(classes[label].name, f"class {label}", classes[label].colour, count=int(count))
        for label, count in sorted(zip(labels, counts), key=lambda pair: -pair[1])
    ]
