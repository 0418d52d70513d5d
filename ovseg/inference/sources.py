"""What a user may hand over as a source: one image, or a stream of images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ovseg.inference.images import ImageSource, read_image
from ovseg.inference.read_ahead import read_ahead
from ovseg.inference.results import Failure

__all__ = ["is_image", "name_of", "run"]

_Result = TypeVar("_Result")


def run(source: ImageSource | Iterable[ImageSource], one: Callable[[np.ndarray, str | None], _Result]) -> Any:
    """Runs on one image, or on a stream of images.

    Args:
        source: What the user handed over.
        one: Makes the result of an image (H, W, 3) uint8 RGB and its name.

    Returns:
        The result of the one image; or an iterator of results in order, in which an image that fails is a
        ``Failure``, and the others go on.
    """
    if is_image(source):
        return one(read_image(source), name_of(source))  # type: ignore[arg-type]
    return _stream(source, one)  # type: ignore[arg-type]


def _stream(
    sources: Iterable[ImageSource], one: Callable[[np.ndarray, str | None], _Result]
) -> Iterator[_Result | Failure]:
    with contextlib.closing(read_ahead(sources)) as images:
        for source, read in images:
            result: _Result | Failure
            try:
                result = one(read(), name_of(source))
            except Exception as error:
                result = Failure(name_of(source) or "image", error)
            yield result


def is_image(source: Any) -> bool:
    """Whether a source is one image rather than an iterable of images."""
    if isinstance(source, str | bytes | bytearray | os.PathLike | np.ndarray | Tensor):
        return True
    return hasattr(source, "read") or hasattr(source, "getbbox")  # an open file, a PIL image


def name_of(source: Any) -> str | None:
    """The path or name that a source has, if any."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)  # type: ignore[return-value]
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return str(name) if name else None
