"""Output formats. Each module of this package is one format and says so in its ``WRITER``; no list to edit.

A format ``foo`` is a file ``foo.py`` here with ``WRITER = Writer(...)``; its name is the name of the module.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ovseg.inference.results import DetResult, SegResult

__all__ = ["Kind", "Writer", "is_output_name", "list_writers", "output_path", "writer", "writer_for"]

Kind = Literal["labels", "detections"]


@dataclass(frozen=True)
class Writer:
    """One output format.

    Attributes:
        extension: What is added to an input's name ("a.jpg" -> "a.jpg.overlay.png"); each format has its own.
        suffixes: Suffixes that a file of this format may have; the first is the one of ``extension``.
        write: ``write(result, path)`` writes the file, and what belongs beside it, each atomically
            (``ovseg._files.atomic_path``). Returns the paths, the main one first. None for formats of
            detections only.
        read: The way back, or None where the format does not hold the labels. What the format does not hold
            is None or, for ``scores``, NaN.
        in_words: One line for help texts.
        write_detections: As ``write``, of detected objects; None for formats that cannot hold them.
    """

    extension: str
    suffixes: tuple[str, ...]
    write: Callable[[SegResult, Path], tuple[Path, ...]] | None
    read: Callable[[Path], SegResult] | None
    in_words: str
    write_detections: Callable[[DetResult, Path], tuple[Path, ...]] | None = None

    def write_any(self, result: SegResult | DetResult, path: Path) -> tuple[Path, ...]:
        """Writes labels or detections.

        Raises:
            ValueError: The format does not hold this kind of result.
        """
        from ovseg.inference.results import DetResult

        if isinstance(result, DetResult):
            if self.write_detections is not None:
                return self.write_detections(result, path)
            kind: Kind = "detections"
        else:
            if self.write is not None:
                return self.write(result, path)
            kind = "labels"
        raise ValueError(f"{path}: this format does not hold {kind}; use {', '.join(list_writers(kind))}")


@functools.cache
def list_writers(kind: Kind = "labels") -> tuple[str, ...]:
    """Names of the formats for segmentations (``labels``) or for detected objects, sorted."""
    return tuple(
        name
        for name in _all()
        if (writer(name).write if kind == "labels" else writer(name).write_detections) is not None
    )


def _all() -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def writer(name: str) -> Writer:
    """The format called ``name``.

    Raises:
        ValueError: There is no such format; the message lists those there are.
    """
    if name not in _all():
        raise ValueError(f"no format {name!r}; there are {', '.join(_all())}")
    return importlib.import_module(f"{__name__}.{name}").WRITER


def writer_for(path: str | os.PathLike[str], kind: Kind = "labels") -> str:
    """The format that a file's name asks for.

    A full extension decides ("x.panoptic.png", "x.labels.png"); otherwise the suffix does, and pictures are
    overlays ("x.png", "x.jpg").

    Raises:
        ValueError: The name asks for none.
    """
    name = Path(path).name.lower()
    formats = list_writers(kind)
    for format in formats:
        if name.endswith(writer(format).extension):
            return format
    for format in ("overlay", *formats):
        if Path(name).suffix in writer(format).suffixes:
            return format
    suffixes = sorted({suffix for format in formats for suffix in writer(format).suffixes})
    raise ValueError(
        f"{os.fspath(path)}: its suffix names no format; use one of {', '.join(suffixes)}, "
        f"or give format= as one of {', '.join(formats)}"
    )


def output_path(root: str | os.PathLike[str], relative: str | os.PathLike[str], format: str) -> Path:
    """Where the result for the input ``relative`` goes: ``a/b.jpg`` -> ``ROOT/a/b.jpg.overlay.png``.

    The input's suffix stays, so that ``b.jpg`` and ``b.png`` do not write the same file.

    Raises:
        ValueError: There is no such format, or ``relative`` leads out of ``root``.
    """
    relative = Path(relative)
    if relative.is_absolute() or ".." in relative.parts or not relative.name:
        raise ValueError(f"{relative} is not a path below the output folder; give the input's relative path")
    return Path(root) / relative.with_name(relative.name + writer(format).extension)


def is_output_name(name: str) -> bool:
    """Whether a file has the name of an output (``b.jpg.overlay.png``), and so is no input."""
    name = name.lower()
    for extension in _extensions():
        stem = name.removesuffix(extension)
        if stem != name and Path(stem).suffix:
            return True
    return False


@functools.cache
def _extensions() -> tuple[str, ...]:
    return tuple(writer(name).extension for name in _all())
