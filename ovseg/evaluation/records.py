"""What an evaluation leaves behind for each image, written as it goes: it can go on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np

from ovseg._files import atomic_path
from ovseg.evaluation.calibration import Calibration
from ovseg.evaluation.miou import ClassAreas, boundary_areas

__all__ = ["ImageRecord", "Record", "RecordFile", "read_records"]


class Record(Protocol):
    """What is known about one image: data for JSON, its index, and why it was left out if it was."""

    @property
    def index(self) -> int: ...

    @property
    def error(self) -> str | None: ...

    def to_dict(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class ImageRecord:
    """One image's counts, or why it has none.

    Attributes:
        index: In the data set.
        name: Of the image.
        areas: Of its classes.
        boundary: The same of the boundaries.
        calibration: Of its pixels; None where scores are no probabilities.
        seconds: From the decoded image to its labels.
        error: Why the image was left out; counts are None then.
    """

    index: int
    name: str
    areas: ClassAreas | None = None
    boundary: ClassAreas | None = None
    calibration: Calibration | None = None
    seconds: float = 0.0
    error: str | None = None

    @classmethod
    def count(
        cls,
        index: int,
        name: str,
        predicted: np.ndarray,
        truth: np.ndarray,
        num_classes: int,
        probability: np.ndarray | None = None,
        seconds: float = 0.0,
    ) -> ImageRecord:
        """Counts one image; see ``ClassAreas.count`` and ``Calibration.count``."""
        calibration = None if probability is None else Calibration.count(predicted, truth, probability)
        return cls(
            index,
            name,
            ClassAreas.count(predicted, truth, num_classes),
            boundary_areas(predicted, truth, num_classes),
            calibration,
            seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON; classes that are not in the image take no room."""
        if self.areas is None or self.boundary is None:
            return {"index": self.index, "name": self.name, "error": self.error}
        cal = self.calibration
        rows = None if cal is None else [row.tolist() for row in (cal.pixels, cal.right, cal.probability)]
        return {
            "index": self.index,
            "name": self.name,
            "seconds": round(self.seconds, 4),
            "areas": _sparse(self.areas),
            "boundary": _sparse(self.boundary),
            "calibration": rows,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], num_classes: int) -> ImageRecord:
        """Inverse of ``to_dict``."""
        if "error" in data:
            return cls(data["index"], data["name"], error=data["error"])
        rows = data["calibration"]
        return cls(
            data["index"],
            data["name"],
            _dense(data["areas"], num_classes),
            _dense(data["boundary"], num_classes),
            None if rows is None else Calibration(*np.array(rows, np.int64)),
            data["seconds"],
        )


def _sparse(areas: ClassAreas) -> list[list[int]]:
    """[class, intersection, predicted, labelled] of the classes that are there."""
    there = np.flatnonzero(areas.predicted + areas.labelled)
    columns = (there, areas.intersection[there], areas.predicted[there], areas.labelled[there])
    return np.stack(columns, axis=1).tolist()


def _dense(rows: list[list[int]], num_classes: int) -> ClassAreas:
    areas = ClassAreas.zeros(num_classes)
    for k, intersection, predicted, labelled in rows:
        areas.intersection[k], areas.predicted[k], areas.labelled[k] = intersection, predicted, labelled
    return areas


class RecordFile:
    """Appends records to a file whose first line says what is evaluated. A context manager.

    A line that a kill cut short is dropped when the file is opened again.

    Args:
        path: The file; one for each process.
        settings: What the counts depend on.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        whole = _lines(path)
        if not whole:
            whole = [json.dumps({"settings": settings})]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, record: Record) -> None:
        """Writes one record; it is on disk when this returns, as far as the process is concerned."""
        self._file.write(json.dumps(record.to_dict()) + "\n")
        self._file.flush()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def read_records(
    folder: Path, settings: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], R]
) -> dict[int, R]:
    """The images that earlier runs have done, by index. Images that failed are not among them.

    Args:
        folder: With ``records.*.jsonl``.
        settings: Those of the run that wants to go on.
        parse: From the data of ``to_dict`` to the record.

    Raises:
        ValueError: The folder holds the evaluation of something else; the message says what differs.
    """
    found: dict[int, R] = {}
    for path in sorted(folder.glob("records.*.jsonl")):
        head, *lines = _lines(path) or ["{}"]
        stored = json.loads(head).get("settings", {})
        plain = json.loads(json.dumps(settings))
        if differing := [key for key in {**plain, **stored} if plain.get(key) != stored.get(key)]:
            key = differing[0]
            raise ValueError(
                f"{folder} holds another evaluation ({key} was {stored.get(key)!r}, is {plain.get(key)!r}); "
                "choose another folder with --out, or delete it"
            )
        for record in (parse(json.loads(line)) for line in lines):
            if record.error is None:
                found[record.index] = record
    return found


def _lines(path: Path) -> list[str]:
    """The complete lines of a file; none if there is no file."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
