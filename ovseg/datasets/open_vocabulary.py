"""Splits of detection data sets into base and novel classes, and annotations that keep to them.

OV-COCO: 48 base and 17 novel classes of COCO (Bansal et al., Zero-Shot Object Detection, ECCV 2018). OV-LVIS:
frequent and common classes are base, rare ones novel (Gu et al., ViLD, ICLR 2022).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg._files import atomic_path
from ovseg.vocab.shipped import read_list

__all__ = ["Split", "open_vocabulary_split", "restrict_annotations", "write_restricted"]


@dataclass(frozen=True)
class Split:
    """A data set's classes by group.

    Attributes:
        classes: All names, in the order of their ids.
        base: Those with boxes in training.
        novel: The others.
    """

    classes: tuple[str, ...]
    base: tuple[str, ...]
    novel: tuple[str, ...]

    def metainfo(self, group: str = "all") -> dict[str, tuple[str, ...]]:
        """What mmdet's data sets and ``OVCocoMetric`` ask for; ``classes`` are ``base`` in training.

        Raises:
            ValueError: The group is none of all, base, novel.
        """
        groups = {"all": self.classes, "base": self.base, "novel": self.novel}
        if group not in groups:
            raise ValueError(f"unknown group {group!r}; one of {', '.join(groups)}")
        return {"classes": groups[group], "base_classes": self.base, "novel_classes": self.novel}


def open_vocabulary_split(words: str = "coco_ov65") -> Split:
    """The split of a shipped list: ``coco_ov65``, ``lvis_v1.regionclip`` or another of LVIS.

    Raises:
        ValueError: There is no such list, or it has no split.
    """
    entries = read_list(words)["classes"]
    groups = {entry["name"]: entry.get("group") for entry in entries}
    if not set(groups.values()) <= {"base", "novel"}:
        raise ValueError(
            f"the list {words!r} has no base and novel classes; use coco_ov65 or lvis_v1.regionclip"
        )
    by_group = {g: tuple(name for name, own in groups.items() if own == g) for g in ("base", "novel")}
    return Split(tuple(groups), by_group["base"], by_group["novel"])


def restrict_annotations(document: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """COCO annotations of some classes; images without any are left out, as in the split's own files.

    Args:
        document: Of COCO's layout: images, annotations, categories.
        names: Of the classes that stay.

    Raises:
        ValueError: The document has no category of one of the names.
    """
    there = {category["name"]: category["id"] for category in document["categories"]}
    if missing := sorted(set(names) - there.keys()):
        raise ValueError(f"the annotations have no category {', '.join(missing[:3])}; are they COCO's?")
    ids = {there[name] for name in names}
    annotations = [item for item in document["annotations"] if item["category_id"] in ids]
    images = {item["image_id"] for item in annotations}
    return {
        **document,
        "images": [image for image in document["images"] if image["id"] in images],
        "annotations": annotations,
        "categories": [category for category in document["categories"] if category["id"] in ids],
    }


def write_restricted(source: Path, target: Path, names: Collection[str]) -> str:
    """Writes a file with the annotations of some classes; says what is in it.

    Raises:
        ValueError: See ``restrict_annotations``.
    """
    document = restrict_annotations(json.loads(source.read_text("utf-8")), names)
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")
    return f"{target}: {len(document['images'])} images, {len(document['annotations'])} boxes"
