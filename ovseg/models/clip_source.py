"""Where the CLIP inside a component comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.table import TowerInfo
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip, load_clip

__all__ = ["ClipSource", "open_clip_source"]

ClipSource: TypeAlias = "str | Mapping[str, Any] | LoadedClip"
"""Name or path of weights; an architecture in open_clip's layout, for random weights; or a loaded CLIP."""


def open_clip_source(source: ClipSource) -> LoadedClip:
    """The CLIP that a config names.

    Raises:
        ValueError: There are no such weights, or no such architecture.
        WeightsUnavailableError: The weights are not on this machine and cannot be fetched.
    """
    if isinstance(source, LoadedClip):
        return source
    if isinstance(source, str):
        return load_clip(source)
    config = architecture(source)
    return LoadedClip(CLIP(config), Tokenizer(config.text.context_length), TowerInfo("random", ""))
