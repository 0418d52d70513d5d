"""What every format writes beside the labels, so that the vocabulary travels with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovseg import __version__
from ovseg._files import atomic_path
from ovseg._lazy import np
from ovseg.inference.results import DetResult, SegResult, pixel_counts
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["categories", "describe", "present", "restore", "write_json"]


def describe(result: SegResult | DetResult) -> dict[str, Any]:
    """What a result says besides its arrays, as plain data for JSON."""
    return {
        "version": __version__,
        "source": result.source,
        "protocol": result.protocol,
        "seconds": result.seconds,
        "vocabulary": result.vocabulary.to_dict(),
    }


def restore(
    label_map: np.ndarray,
    description: Mapping[str, Any],
    scores: np.ndarray | None = None,
    class_scores: np.ndarray | None = None,
) -> SegResult:
    """The result that ``describe`` described, its scores NaN where they were not kept."""
    if scores is None:
        scores = np.full(label_map.shape, np.nan, np.float16)
    return SegResult(
        label_map=label_map,
        scores=scores,
        vocabulary=Vocabulary.from_dict(description["vocabulary"]),
        protocol=description["protocol"],
        source=description["source"],
        class_scores=class_scores,
        seconds=description["seconds"],
    )


def categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """COCO's categories. Ids are labels + 1: in COCO 0 means "nothing"."""
    return [
        {"id": i + 1, "name": item.name, "supercategory": "", "isthing": 0, "color": list(item.colour)}
        for i, item in enumerate(vocabulary.classes)
    ]


def present(result: SegResult) -> list[tuple[int, int]]:
    """(label, pixels) of each class in the image, in the order of the labels."""
    counts = pixel_counts(result.label_map, len(result.vocabulary))[:-1]
    return [(int(label), int(counts[label])) for label in np.flatnonzero(counts)]


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Writes ``data`` as UTF-8 JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        # A file name that is no UTF-8 reaches us as lone surrogates; as escapes they are valid JSON.
        text = json.dumps(data, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
