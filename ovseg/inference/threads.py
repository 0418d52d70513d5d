"""Two small pipes, so that reading, computing and writing overlap. Queues are short: memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

__all__ = ["Worker", "in_background"]

_Item = TypeVar("_Item")
_END = object()


def in_background(items: Iterable[_Item], depth: int = 2) -> Generator[_Item, None, None]:
    """Goes through ``items`` in a thread, ahead of whoever takes them by at most ``depth``.

    An error of ``items`` is raised here, after what came before it. Closing the generator ends the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=work, name="ovseg-read", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


class Worker(Generic[_Item]):
    """Calls a function on items in a thread, in order.

    Args:
        function: What is done with each.
        depth: Items that may wait; ``put`` blocks beyond.
    """

    def __init__(self, function: Callable[[_Item], Any], depth: int = 2) -> None:
        self._function, self._error = function, None
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._thread: threading.Thread = threading.Thread(target=self._work, name="ovseg-write", daemon=True)
        self._thread.start()

    def put(self, item: _Item) -> None:
        """Hands an item over. Raises what the function raised on an earlier one."""
        self._check()
        self._waiting.put(item)

    def close(self) -> None:
        """Waits until all items are done. Raises what the function raised."""
        if self._thread.is_alive():
            self._waiting.put(_END)
            self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        failed = False
        while (item := self._waiting.get()) is not _END:
            if failed:
                continue  # whoever puts must not block
            try:
                self._function(item)
            except BaseException as error:
                self._error, failed = error, True  # type: ignore[assignment]
