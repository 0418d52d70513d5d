"""``yolo``: a line per object, as Ultralytics and Darknet read it; ``classes.txt`` beside it has names.

Of detections a line is a box. Of a segmentation it is the outline of a connected part; holes are covered by
what lies in them, since Ultralytics paints small objects over large ones. Enclosed pixels without a label are
lost.
"""

from __future__ import annotations

from pathlib import Path

from ovseg._files import atomic_path
from ovseg.inference.results import DetResult, SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._parts import polygons

__all__ = ["WRITER"]


def _write_detections(result: DetResult, path: Path) -> tuple[Path, ...]:
    """``label centre_x centre_y width height score``, lengths in fractions of the image."""
    height, width = result.size
    lines = []
    for (x1, y1, x2, y2), label, score in zip(result.boxes.tolist(), result.labels, result.scores):
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(f"{label} {' '.join(f'{value:.6f}' for value in box)} {score:.4f}\n")
    return _written(lines, result, path)


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    """``label x y x y ...``, centres of pixels in fractions of the image."""
    height, width = result.size
    lines = []
    for label, points in polygons(result.label_map):
        if label >= 0:
            places = (points + 0.5) / (width, height)
            lines.append(f"{label} {' '.join(f'{value:.6f}' for value in places.ravel().tolist())}\n")
    return _written(lines, result, path)


def _written(lines: list[str], result: SegResult | DetResult, path: Path) -> tuple[Path, ...]:
    names = path.with_name("classes.txt")
    for target, text in ((path, "".join(lines)), (names, "".join(f"{n}\n" for n in result.vocabulary.names))):
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path, names


WRITER = Writer(
    extension=".yolo.txt",
    suffixes=(".txt",),
    write=_write,
    read=None,
    in_words="YOLO: outlines of parts, or boxes with scores, and classes.txt",
    write_detections=_write_detections,
)
