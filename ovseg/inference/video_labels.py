"""Labels of the frames of a video, as lines of JSON or as a sequence of PNG files."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType

from ovseg._files import atomic_path
from ovseg.inference.results import SegResult
from ovseg.inference.video import VideoFrame
from ovseg.inference.writers import writer
from ovseg.inference.writers._describe import describe
from ovseg.inference.writers.coco import segmentation_to_coco

__all__ = ["LabelLines", "LabelPictures", "label_writer"]


def label_writer(path: Path) -> LabelLines | LabelPictures:
    """What writes labels to ``path``: a ``.jsonl`` file, or a folder (a name without a suffix).

    Raises:
        ValueError: It is neither.
    """
    if path.suffix.lower() == ".jsonl":
        return LabelLines(path)
    if path.suffix:
        raise ValueError(f"{path}: labels are written to a .jsonl file or to a folder")
    return LabelPictures(path)


class LabelPictures:
    """A folder of indexed PNG files (format ``png``): ``000000.labels.png`` and so on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> LabelPictures:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    def write(self, frame: VideoFrame) -> None:
        """Adds a frame."""
        writer("png").write_any(frame.result, self.path / f"{frame.index:06d}.labels.png")


class LabelLines:
    """A line with the vocabulary, then a line per frame with COCO's RLE of each class in it.

    The file appears when the context is left; after Ctrl-C it holds the frames so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LabelLines:
        temporary = self._stack.enter_context(atomic_path(self.path))
        self._file = self._stack.enter_context(
            temporary.open("w", encoding="utf-8", errors="backslashreplace")
        )
        self._empty = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._stack.close()
        else:
            self._stack.__exit__(kind, error, traceback)

    def write(self, frame: VideoFrame) -> None:
        """Adds a frame."""
        result = frame.result
        if self._empty:
            self._file.write(json.dumps({"ovseg": describe(result)}) + "\n")
            self._empty = False
        line = {"frame": frame.index, "time": round(frame.time, 6), "segments": _segments(result)}
        self._file.write(json.dumps(line) + "\n")


def _segments(result: SegResult) -> list[dict[str, object]]:
    names = result.vocabulary.names
    return [
        {"class": names[item["category_id"] - 1]}
        | {key: item[key] for key in ("category_id", "segmentation", "area")}
        for item in segmentation_to_coco(result)["annotations"]
    ]
