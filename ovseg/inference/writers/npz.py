"""``npz``: everything a result holds but the image, as NumPy arrays."""

from __future__ import annotations

import json
from pathlib import Path

from ovseg._files import atomic_path
from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import describe, restore

__all__ = ["WRITER"]


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    arrays = {
        "label_map": result.label_map,
        "scores": result.scores,
        "names": np.array(result.vocabulary.names),
        "description": np.array(json.dumps(describe(result))),
    }
    if result.class_scores is not None:
        arrays["class_scores"] = result.class_scores
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return (path,)


def _read(path: Path) -> SegResult:
    with np.load(path, allow_pickle=False) as arrays:
        if "description" not in arrays:
            raise ValueError(f"{path} was not written by ovseg: it has no description")
        description = json.loads(arrays["description"].item())
        return restore(arrays["label_map"], description, arrays["scores"], arrays.get("class_scores"))


WRITER = Writer(
    extension=".npz",
    suffixes=(".npz",),
    write=_write,
    read=_read,
    in_words="NumPy arrays: label_map, scores, names",
)
