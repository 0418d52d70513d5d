"""What a prediction returns: labels or boxes with their vocabulary, and the ways on from there."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg._lazy import np

if TYPE_CHECKING:
    from ovseg.inference.images import ImageSource
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["DetResult", "Failure", "SegResult", "pixel_counts"]


@dataclass(eq=False)
class SegResult:
    """A segmented image.

    Attributes:
        label_map: (H, W) int32, the index of the class in ``vocabulary``; -1 where no class was given
            ("unlabelled": background words won, or a threshold was missed).
        scores: (H, W) float16, the score of the chosen class; ``protocol`` says what it means. NaN where the
            file that it was read from does not hold it.
        vocabulary: The K classes that a label can be. Background words are not among them.
        protocol: Name of the rules that made the labels.
        source: Path or other name of the image.
        image: (H, W, 3) uint8 RGB, kept to draw on.
        class_scores: (K, H, W) float16, where asked for.
        seconds: Wall time from the decoded image to this result.
    """

    label_map: np.ndarray
    scores: np.ndarray
    vocabulary: Vocabulary
    protocol: str = ""
    source: str | None = None
    image: np.ndarray | None = None
    class_scores: np.ndarray | None = None
    seconds: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.label_map.shape[0], self.label_map.shape[1]

    @property
    def unlabelled(self) -> float:
        """Fraction of the image without a class, 0 to 1."""
        return float(pixel_counts(self.label_map, len(self.vocabulary))[-1] / self.label_map.size)

    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the image, the largest first."""
        return tuple(self.area())

    def area(self) -> dict[str, float]:
        """Fraction of the image (0 to 1) of each class in it, the largest first.

        The fractions and ``unlabelled`` sum to 1.
        """
        counts = pixel_counts(self.label_map, len(self.vocabulary))[:-1]
        order = np.argsort(-counts, kind="stable")
        return {self.vocabulary.names[i]: float(counts[i] / self.label_map.size) for i in order if counts[i]}

    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool, true where the class is; all false for a class of the vocabulary that is not there.

        Raises:
            ValueError: The vocabulary has no such class; the message names near ones.
        """
        return self.label_map == _class_index(self.vocabulary, name)

    def overlay(
        self, image: ImageSource | None = None, *, alpha: float = 0.6, legend: bool = True
    ) -> np.ndarray:
        """The image with its classes painted over it, (H', W', 3) uint8 RGB.

        Args:
            image: What to draw on, of the same size; the image that was segmented by default.
            alpha: Weight of the colours, 0 to 1.
            legend: Add a panel with names and areas (and enlarge tiny images); else the size is the image's.

        Raises:
            ValueError: There is no image, or it is of another size.
        """
        from ovseg.inference.images import read_image
        from ovseg.inference.render import overlay

        pixels = self.image if image is None else read_image(image)
        if pixels is None:
            raise ValueError(
                "this result keeps no image to draw on; pass one, as in result.overlay('photo.jpg'), "
                "or segment with keep_image=True"
            )
        return overlay(pixels, self.label_map, self.vocabulary, alpha=alpha, legend=legend)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Writes the result to a file, whole or not at all.

        Args:
            path: Its name. Missing folders are made.
            format: One of ``ovseg.inference.writers.list_writers()``; by default the name decides:
                ``x.overlay.png``, ``x.labels.png``, ``x.labelme.json``, ``x.npz`` and so on; a plain
                ``x.png`` or ``x.jpg`` is an overlay, ``x.json`` is COCO's, ``x.txt`` YOLO's.

        Returns:
            The path of the file. Some formats put another beside it: ``png`` and ``panoptic`` a JSON file,
            ``yolo`` ``classes.txt``, ``voc`` ``labelmap.txt``.

        Raises:
            ValueError: No such format, or the format does not take this suffix or this result.
            ovseg._files.WriteError: An OSError: the folder cannot be written, or the disk is full.
        """
        from ovseg.inference.writers import writer, writer_for

        path = Path(path)
        chosen = writer(format or writer_for(path))
        if path.suffix.lower() not in chosen.suffixes:
            raise ValueError(f"{path}: format {format!r} is written to {' or '.join(chosen.suffixes)} files")
        return chosen.write_any(self, path)[0]

    def to_coco(self, image_id: int = 1) -> dict[str, Any]:
        """COCO annotations as plain data: one RLE per class in the image. Category ids are labels + 1."""
        from ovseg.inference.writers.coco import segmentation_to_coco

        return segmentation_to_coco(self, image_id)

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with one mask per class in the image, ``class_id`` being the label.

        Raises:
            ImportError: The extra is not installed.
        """
        names = self.classes()
        labels = np.array([self.vocabulary.names.index(name) for name in names], dtype=np.int64)
        masks = self.label_map[None] == labels[:, None, None]
        boxes = np.array([_bounds(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
        return _detections(boxes, masks, labels, None, names)


@dataclass(eq=False)
class DetResult:
    """Detected objects, N of them.

    Attributes:
        boxes: (N, 4) float32 XYXY in pixels of the image; x2 and y2 are the far edges.
        scores: (N,) float32; ``protocol`` says what they mean.
        labels: (N,) int64, the index of the class in ``vocabulary``.
        vocabulary: The classes that a label can be.
        size: (H, W) of the image in pixels.
        masks: (N, H, W) bool, where the method gives them.
        protocol: Name of the rules that made the detections.
        source: Path or other name of the image.
        image: (H, W, 3) uint8 RGB, kept to draw on.
        seconds: Wall time from the decoded image to this result.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    vocabulary: Vocabulary
    size: tuple[int, int]
    masks: np.ndarray | None = None
    protocol: str = ""
    source: str | None = None
    image: np.ndarray | None = None
    seconds: float | None = None

    def __len__(self) -> int:
        """N, the number of objects."""
        return len(self.boxes)

    @property
    def names(self) -> tuple[str, ...]:
        """N class names, one per object."""
        return tuple(self.vocabulary.names[label] for label in self.labels)

    def classes(self) -> tuple[str, ...]:
        """Names of the classes among the objects, in the order of the vocabulary."""
        return tuple(self.vocabulary.names[label] for label in np.unique(self.labels))

    def overlay(self, image: ImageSource | None = None, *, legend: bool = True) -> np.ndarray:
        """The image with its boxes (and masks) and their names, (H', W', 3) uint8 RGB.

        Args:
            image: What to draw on, of the same size; the image that was searched by default.
            legend: Add a panel with the names and how many there are of each.

        Raises:
            ValueError: There is no image, or it is of another size.
        """
        from ovseg.inference.images import read_image
        from ovseg.inference.render_boxes import draw_detections

        pixels = self.image if image is None else read_image(image)
        if pixels is None:
            raise ValueError(
                "this result keeps no image to draw on; pass one, as in result.overlay('photo.jpg'), "
                "or detect with keep_image=True"
            )
        return draw_detections(pixels, self, legend=legend)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Writes the result to a file, whole or not at all.

        Args:
            path: Its name. Missing folders are made.
            format: ``coco``, ``overlay`` or ``yolo``; by default the name decides: ``x.coco.json``, ``x.txt``
                (YOLO), ``x.png`` or ``x.jpg`` (overlay).

        Returns:
            The path of the file. ``yolo`` puts ``classes.txt`` beside it.

        Raises:
            ValueError: No such format, or the format does not take this suffix or detections.
            ovseg._files.WriteError: An OSError: the folder cannot be written, or the disk is full.
        """
        from ovseg.inference.writers import writer, writer_for

        path = Path(path)
        name = format or writer_for(path, "detections")
        chosen = writer(name)
        if path.suffix.lower() not in chosen.suffixes:
            raise ValueError(f"{path}: format {name!r} is written to {' or '.join(chosen.suffixes)} files")
        return chosen.write_any(self, path)[0]

    def to_coco(self, image_id: int = 1) -> dict[str, Any]:
        """COCO annotations as plain data, one per object, with its score. Category ids are labels + 1."""
        from ovseg.inference.writers.coco import detection_to_coco

        return detection_to_coco(self, image_id)

    def to_supervision(self) -> Any:
        """``supervision.Detections``, ``class_id`` being the label.

        Raises:
            ImportError: The extra is not installed.
        """
        return _detections(self.boxes, self.masks, self.labels, self.scores, self.names)


@dataclass(frozen=True, eq=False)
class Failure:
    """Stands in a stream of results for an image that failed. Falsy, so that ``if result:`` passes over it.

    Attributes:
        source: Path or other name of the image.
        error: What went wrong.
    """

    source: str
    error: Exception

    def __bool__(self) -> bool:
        return False

    @property
    def message(self) -> str:
        """One line that names the image, what is wrong and the cure."""
        text = " ".join(str(self.error).split())
        if isinstance(self.error, MemoryError) or "out of memory" in text:
            text = "not enough memory for this image; scale it down or use a smaller batch_size"
        elif not isinstance(self.error, ValueError | OSError) or not text:
            # Ours are ValueErrors and OSErrors, and name the cure; anything else is a fault of the program.
            text = f"{type(self.error).__name__}: {text}".rstrip(": ") + "; rerun with --debug to see where"
        return text if self.source in text else f"{self.source}: {text}"


def pixel_counts(label_map: np.ndarray, num_classes: int) -> np.ndarray:
    """(K + 1,) int64: pixels of each class, and at the end of the unlabelled."""
    counts = np.zeros(num_classes + 1, np.int64)
    rows = max(1, (1 << 20) // label_map.shape[1])  # bincount widens to int64: keep that copy small
    for top in range(0, label_map.shape[0], rows):
        counts += np.bincount(label_map[top : top + rows].ravel() + 1, minlength=num_classes + 1)
    return np.roll(counts, -1)


def _class_index(vocabulary: Vocabulary, name: str) -> int:
    if name in vocabulary.names:
        return vocabulary.names.index(name)
    lowered = {known.casefold(): known for known in vocabulary.names}
    near = [lowered[match] for match in difflib.get_close_matches(name.casefold(), lowered, n=3)]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else _listed(vocabulary.names)
    raise ValueError(f"no class {name!r} in this result; {hint}")


def _listed(names: tuple[str, ...], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"its classes are {', '.join(names[:limit])}{more}"


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """XYXY of the true pixels, the far edges exclusive. There must be one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _detections(
    boxes: np.ndarray,
    masks: np.ndarray | None,
    labels: np.ndarray,
    scores: np.ndarray | None,
    names: tuple[str, ...],
) -> Any:
    try:
        import supervision
    except ImportError as error:
        message = "to_supervision() needs the supervision package: pip install 'ovseg[supervision]'"
        raise ImportError(message) from error
    return supervision.Detections(
        xyxy=boxes, mask=masks, class_id=labels, confidence=scores, data={"class_name": np.array(names, str)}
    )
