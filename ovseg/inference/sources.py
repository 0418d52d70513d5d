"""What a user may hand over as a source: one image, or a stream of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ovseg.inference.images import ImageSource
from ovseg.inference.results import Failure

__all__ = ["is_image", "name_of", "stream"]

_Result = TypeVar("_Result")


def stream(
    sources: Iterable[ImageSource], one: Callable[[ImageSource], _Result]
) -> Iterator[_Result | Failure]:
    """The result of each source in order; one that fails becomes a ``Failure``, and the others go on."""
    for source in sources:
        result: _Result | Failure
        try:
            result = one(source)
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
