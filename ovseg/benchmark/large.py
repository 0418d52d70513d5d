"""Large: time and peak memory of a 12000 x 9000 picture seen at four times the protocol's detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ovseg.benchmark.harness import fresh_run, record

__all__ = ["prepare", "run"]

_MODEL = "maskclip_vit_tiny.emoji"


def prepare(height: int, width: int, detail: float) -> Callable[[], Any]:
    """A call on a striped picture, with the model warmed up."""
    from ovseg.api import load

    predictor = load(_MODEL)
    predictor.set_vocabulary(["house", "tree", "cow"])
    predictor.segment(np.zeros((64, 64, 3), np.uint8))
    image = np.zeros((height, width, 3), np.uint8)
    image[::7, ::5] = 255
    return lambda: predictor.segment(image, detail=detail)


def run() -> Iterator[dict[str, Any]]:
    """Yields ``large.segment``: what the call adds to the memory of a process that holds the picture."""
    size = {"height": 9000, "width": 12000, "detail": 4.0}
    milliseconds, added = fresh_run(prepare, **size)
    yield record("large.segment", ms=milliseconds, added_mb=round(added / 2**20), model=_MODEL, **size)
