"""Modules that are imported at their first use.

``import torch`` takes seconds. Method files name it (their attention functions are written with it), yet
``ovseg models`` and ``import ovseg`` read those files only for their tables. So they import it from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["F", "torch"]


class _LazyModule:
    """Stands for a module; imports it at the first attribute access."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:
    torch = _LazyModule("torch")
    F = _LazyModule("torch.nn.functional")
