"""Open-vocabulary segmentation and detection: CLIP-based dense prediction in one package."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
