"""Modules that are imported at their first use.

``import torch`` takes seconds. Method files name it (their attention functions are written with it), yet
``ovseg models`` and ``import ovseg`` read those files only for their tables. So they import it from here.
Likewise numpy in the writers, of which ``ovseg segment --help`` wants to know only what they are called; and
torchvision's operators, which take as long as torch itself and are needed only where there are boxes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["F", "import_now", "np", "ops", "torch"]


class _LazyModule:
    """Stands for a module; imports it at the first attribute access."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def import_now() -> None:
    """Imports what the names here stand for, so that using them is a plain attribute access from now on.

    Towers call it: ``torch.compile`` cannot follow an import in the middle of a forward pass.
    """
    for module in (torch, F):
        if isinstance(module, _LazyModule):
            vars(module).update(vars(importlib.import_module(module._name)))


if TYPE_CHECKING:
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torchvision import ops
else:
    np = _LazyModule("numpy")
    torch = _LazyModule("torch")
    F = _LazyModule("torch.nn.functional")
    ops = _LazyModule("torchvision.ops")
