"""Which files a user means: folders, patterns and lists, in order, of which only the names are held."""

from __future__ import annotations

import glob
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from ovseg.inference.writers import is_output_name

__all__ = ["IMAGE_SUFFIXES", "SourceFile", "SourceFiles", "expand_sources"]

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif",
    ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dds", ".pcx",
})
# fmt: on
"""Suffixes (lower case) by which folders and patterns are searched. A file named outright may have any."""


@dataclass(frozen=True)
class SourceFile(os.PathLike[str]):
    """A file to be read, and where its outputs go.

    Attributes:
        path: The file.
        relative: Its path below the folder or pattern it was found by; outputs keep it.
    """

    path: Path
    relative: Path

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


class SourceFiles(Sequence[SourceFile]):
    """Files in order. A million of them take the memory of their names, some 150 MB."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._cuts = array("I")  # characters of each name before its relative path

    def add(self, name: str, cut: int) -> None:
        """Appends a file whose relative path begins after ``cut`` characters of its name."""
        self._names.append(name)
        self._cuts.append(cut)

    def select(self, keep: Callable[[SourceFile], bool]) -> SourceFiles:
        """Those that ``keep`` says, in order."""
        chosen = SourceFiles()
        for i, file in enumerate(self):
            if keep(file):
                chosen.add(self._names[i], self._cuts[i])
        return chosen

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> SourceFile: ...

    @overload
    def __getitem__(self, index: slice) -> list[SourceFile]: ...

    def __getitem__(self, index: int | slice) -> SourceFile | list[SourceFile]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        name = self._names[index]
        return SourceFile(Path(name), Path(name[self._cuts[index] :]))


def expand_sources(arguments: Iterable[str | os.PathLike[str]]) -> SourceFiles:
    """Lists the images that files, folders and patterns stand for.

    Folders are searched to any depth in sorted order for the suffixes of ``IMAGE_SUFFIXES``; hidden files and
    folders, links to folders, and pictures that ovseg wrote itself (``a.jpg.overlay.png``) are passed over.
    Patterns (``photos/**/*.png``) work likewise, for shells that do not expand them. A file that is named but
    missing stays in the list, so that it is reported beside its neighbours when it is read.

    Returns:
        Each file once, in the order of the arguments, with its path relative to the folder, to the fixed part
        of the pattern, or to its own folder. Where two files would share a relative path, all are taken
        relative to their common folder, so that no output overwrites another.

    Raises:
        ValueError: A folder or pattern has no images, none of the files exists, or there is no argument.
    """
    names = [os.fspath(argument) for argument in arguments]
    if not names:
        raise ValueError("no images given; name files, folders or patterns such as 'photos/*.jpg'")
    sources, seen = SourceFiles(), set[str]()
    for argument in names:
        for name, cut in _expand(argument):
            if len(names) > 1:  # else nothing can come twice
                if (full := os.path.abspath(name)) in seen:
                    continue
                seen.add(full)
            sources.add(name, cut)
    if not any(source.path.exists() for source in sources):
        raise ValueError(f"{_shown(names)}: no such file or folder; check the path")
    return sources if len(names) == 1 else _without_collisions(sources)


def _shown(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _expand(argument: str) -> Iterator[tuple[str, int]]:
    """Names, and how many of their characters come before the relative path."""
    path = Path(argument)
    if path.is_dir():
        root, found = str(path), _images_below(str(path))
        missing = f"no images in folder {argument}"
    elif not path.exists() and glob.has_magic(argument):
        matches = (str(Path(match)) for match in sorted(glob.glob(argument, recursive=True)))
        root, found = (
            _fixed_part(path),
            (name for name in matches if _is_input(name) and os.path.isfile(name)),
        )
        missing = f"no images match {argument}"
    else:
        name = str(path)
        yield name, len(name) - len(path.name)
        return
    cut = 0 if root == "" else len(os.path.join(root, ""))
    name = ""
    for name in found:
        yield name, cut
    if not name:
        raise ValueError(f"{missing}; known suffixes are {' '.join(sorted(IMAGE_SUFFIXES))}")


def _images_below(root: str) -> Iterator[str]:
    """Files of a folder in the order of their paths, folder by folder."""
    waiting = [_entries(root)]
    while waiting:
        for path, is_folder in waiting[-1]:
            if is_folder:
                waiting.append(_entries(path))
                break
            yield path
        else:
            waiting.pop()


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """Images and sub-folders, by name; links to folders are not followed, so that no loop can trap it."""
    names, folders = [], set[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif not (_is_input(entry.name) and entry.is_file()):
                    continue
                names.append(entry.name)
    except OSError:
        return  # not ours to read
    names.sort()
    for name in names:
        yield os.path.join(folder, name), name in folders


def _is_input(name: str) -> bool:
    base = os.path.basename(name)
    return os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES and not is_output_name(base)


def _fixed_part(pattern: Path) -> str:
    """The folders of ``pattern`` before its first wildcard; "" if there is none."""
    fixed: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return str(Path(*fixed)) if fixed else ""


def _without_collisions(sources: SourceFiles) -> SourceFiles:
    relatives = {os.path.normcase(source.relative) for source in sources}
    if len(relatives) == len(sources):
        return sources
    absolute = [os.path.abspath(source.path) for source in sources]
    try:
        cut = len(os.path.join(os.path.commonpath(absolute), ""))
        cuts = [cut] * len(absolute)
    except ValueError:  # on two drives of Windows
        cuts = [len(Path(full).anchor) for full in absolute]
    apart = SourceFiles()
    for full, cut in zip(absolute, cuts):
        apart.add(full, cut)
    return apart
