"""``yolo``: a line per object, as Ultralytics and Darknet read it; ``classes.txt`` beside it has names."""

from __future__ import annotations

from pathlib import Path

from ovseg._files import atomic_path
from ovseg.inference.results import DetResult
from ovseg.inference.writers import Writer

__all__ = ["WRITER"]


def _write_detections(result: DetResult, path: Path) -> tuple[Path, ...]:
    """``label centre_x centre_y width height score``, lengths in fractions of the image."""
    height, width = result.size
    lines = []
    for (x1, y1, x2, y2), label, score in zip(result.boxes.tolist(), result.labels, result.scores):
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(f"{label} {' '.join(f'{value:.6f}' for value in box)} {score:.4f}\n")
    names = path.with_name("classes.txt")
    for target, text in ((path, "".join(lines)), (names, "".join(f"{n}\n" for n in result.vocabulary.names))):
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path, names


WRITER = Writer(
    extension=".yolo.txt",
    suffixes=(".txt",),
    write=None,
    read=None,
    in_words="YOLO labels with scores, and classes.txt",
    write_detections=_write_detections,
)
