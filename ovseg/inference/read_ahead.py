"""Decoding the next images of a stream while the model works on this one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ovseg.inference.images import ImageSource, read_image

__all__ = ["read_ahead"]

_Read = Callable[[], np.ndarray]

_WORKERS = min(4, os.cpu_count() or 1)  # Pillow decodes without holding the interpreter's lock


def read_ahead(
    sources: Iterable[ImageSource], workers: int = _WORKERS
) -> Generator[tuple[ImageSource, _Read], None, None]:
    """Goes through a stream in order, decoding files ahead of time.

    Only paths are read ahead, at most ``workers`` of them, so memory does not grow with the stream. Arrays
    and other things in memory are passed on at once: whoever makes them may use their memory again.

    Args:
        sources: Images (see ``read_image``).
        workers: Threads that decode.

    Yields:
        Each source, with a function that gives its (H, W, 3) uint8 RGB or raises ``ImageError``.
    """
    pending: deque[tuple[ImageSource, Future[np.ndarray]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ovseg-decode")
    try:
        for source in sources:
            if isinstance(source, str | os.PathLike):
                pending.append((source, pool.submit(read_image, source)))
                if len(pending) > workers:
                    yield _taken(pending)
                continue
            while pending:
                yield _taken(pending)
            yield source, _reader(source)
        while pending:
            yield _taken(pending)
    finally:
        pool.shutdown(wait=False, cancel_futures=bool(pending))  # what was handed out is still decoded


def _taken(pending: deque[tuple[ImageSource, Future[np.ndarray]]]) -> tuple[ImageSource, _Read]:
    source, future = pending.popleft()
    return source, future.result


def _reader(source: ImageSource) -> _Read:
    return lambda: read_image(source)
