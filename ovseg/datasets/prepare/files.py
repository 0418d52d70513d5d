"""What all conversions share."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg._files import WriteError, atomic_path
from ovseg.datasets.labels import LabelError

__all__ = ["LayoutError", "count", "main", "need", "recode", "write_labels", "write_list"]


class LayoutError(ValueError):
    """Files are not where the official download has them. The message names what is missing."""


def need(root: Path, *paths: str) -> list[Path]:
    """The paths below ``root``.

    Raises:
        LayoutError: One is not there.
    """
    for path in paths:
        if not (root / path).exists():
            raise LayoutError(f"{root / path} is missing; unpack the official download below {root}")
    return [root / path for path in paths]


def recode(labels: NDArray, table: NDArray, source: Path) -> NDArray:
    """``table[labels]``.

    Raises:
        LayoutError: A label is outside the table, or its entry is negative: not a file of this download.
    """
    if labels.size and (labels.max() >= len(table) or labels.min() < 0):
        raise LayoutError(f"{source} holds label {int(labels.max())}; it is not a file of this download")
    out = table[labels]
    if (out < 0).any():
        raise LayoutError(
            f"{source} holds label {int(labels[out < 0][0])}, which this data set does not have"
        )
    return out


def write_labels(path: Path, labels: NDArray) -> None:
    """Writes a label map, 8-bit PNG or 16-bit TIFF by its suffix, whole or not at all."""
    kind = np.uint16 if path.suffix == ".tif" else np.uint8
    with atomic_path(path) as temporary:
        Image.fromarray(labels.astype(kind)).save(temporary)


def write_list(path: Path, names: Iterable[str]) -> None:
    """Writes names, one a line."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def count(what: str, found: int, published: int | None) -> str:
    """A line for the user; it says so where the number is not the published one."""
    if published is None or found == published:
        return f"{what}: {found}"
    return f"{what}: {found}, published are {published}: the download is not complete, or another version"


def main(prepare: Callable[[Path], Sequence[str]], argv: Sequence[str] | None = None) -> int:
    """Command line of a ``tools/prepare`` script; returns the exit code."""
    text = sys.modules[prepare.__module__].__doc__
    parser = ArgumentParser(description=text, formatter_class=RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with the unpacked download")
    args = parser.parse_args(argv)
    try:
        for line in prepare(args.root):
            print(line)
    except (LayoutError, LabelError, WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
