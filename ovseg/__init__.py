"""Open-vocabulary segmentation and detection: CLIP-based dense prediction in one package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovseg.api import build, features, load
    from ovseg.inference.predictor import Predictor
    from ovseg.inference.results import DetResult, Failure, SegResult
    from ovseg.methods.registry import list_methods, list_models
    from ovseg.vocab.vocabulary import Vocabulary

__version__ = "0.1.0.dev0"

__all__ = [
    "DetResult",
    "Failure",
    "Predictor",
    "SegResult",
    "Vocabulary",
    "build",
    "features",
    "list_methods",
    "list_models",
    "load",
]

_HOMES = {
    "build": "ovseg.api",
    "features": "ovseg.api",
    "load": "ovseg.api",
    "Predictor": "ovseg.inference.predictor",
    "DetResult": "ovseg.inference.results",
    "Failure": "ovseg.inference.results",
    "SegResult": "ovseg.inference.results",
    "list_methods": "ovseg.methods.registry",
    "list_models": "ovseg.methods.registry",
    "Vocabulary": "ovseg.vocab.vocabulary",
}


def __getattr__(name: str) -> Any:
    # Public names are imported at their first use: `import ovseg` must not cost the seconds that torch takes.
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
