"""The shipped word lists: one JSON file per data set and method, facts with their sources.

A published number depends on its list: spelling, synonyms and background words all move it by several mIoU.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["list_vocabularies", "read_list"]

# What a data set's bare name stands for: the list with plain spelling ("traffic light", not "trafficlight"),
# and background words where the data set has a background class.
_DEFAULTS = {
    "ade150": "ade150.cat_seg",
    "ade847": "ade847.san",
    "cityscapes": "cityscapes.clip_dinoiser",
    "coco_object": "coco_object.proxyclip",
    "coco_panoptic133": "coco_panoptic133.fc_clip",
    "coco_stuff171": "coco_stuff171.cat_seg",
    "context459": "context459.proxyclip",
    "context59": "context59.cat_seg",
    "context60": "context60.clip_dinoiser",
    "lvis_v1": "lvis_v1.vild",
    "mapillary_vistas65": "mapillary_vistas65.fc_clip",
    "objects365_v1": "objects365_v1.f_vit",
    "voc20": "voc20.cat_seg",
    "voc20b": "voc20b.cat_seg",
    "voc21": "voc21.proxyclip",
    "voc_detection20": "voc_detection20.f_vit",
}


def list_vocabularies() -> list[str]:
    """Names of the shipped lists: data sets, and ``dataset.method`` for each list of its own."""
    return sorted({*_stems(), *_DEFAULTS})


def read_list(name: str) -> dict[str, Any]:
    """A shipped list as its file holds it: classes, sources, separator, synonym rule, notes.

    Args:
        name: A data set ("ade150"), a file ("ade150.sclip"), or a data set and any method that uses one of
            its lists ("ade150.naclip" is "ade150.sclip").

    Raises:
        ValueError: There is no such list; near names are given.
    """
    stem = _DEFAULTS.get(name, name)
    if stem in _stems():
        return _load(stem)
    dataset, _, method = name.partition(".")
    for other in _stems():
        if method and other.partition(".")[0] == dataset:
            data = _load(other)
            if method in (use["protocol"] for use in data["protocols"]):
                return data
    near = difflib.get_close_matches(name, list_vocabularies(), n=4, cutoff=0.5)
    near += [n for n in list_vocabularies() if n.startswith(f"{dataset}.") and n not in near]
    raise ValueError(
        f"unknown vocabulary {name!r}; near: {', '.join(near[:10]) or 'none'}. To ask for a class of your "
        f"own, pass a list: [{name!r}]"
    )


@cache
def _stems() -> tuple[str, ...]:
    folder = files("ovseg.vocab") / "lists"
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


def _load(stem: str) -> dict[str, Any]:
    return json.loads((files("ovseg.vocab") / "lists" / f"{stem}.json").read_text(encoding="utf-8"))
