"""A small slice of the offline benchmark on the shipped scenes: no figure falls by more than a point.

``python tests/evaluation/test_emoji_slice.py`` measures the reference again, for a change that is meant to move
figures.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmseg")

import ovseg
from ovseg.evaluation.suite import CONDITIONS, measure_sets, regressions, suite_sets

_REFERENCE = Path(__file__).with_suffix(".json")
_ROWS = ("maskclip_vit_tiny.emoji", "sclip_vit_tiny.emoji", "maskclip_rn_tiny.emoji")
_COLUMNS = ("base, all words", "novel, present")
_SCENES = 4


def _measured(name: str) -> dict[str, Any]:
    sets = {c: data for c, data in suite_sets("emoji_small", _SCENES).items() if c.name in _COLUMNS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of words that a small tower confuses
        found = measure_sets(ovseg.load(name, device="cpu"), sets, _SCENES)
    return {"name": name, "images": _SCENES, "columns": found["columns"]}


@pytest.mark.parametrize("name", _ROWS)
def test_no_figure_fell(name):
    reference = {row["name"]: row for row in json.loads(_REFERENCE.read_text(encoding="utf-8"))}
    found = _measured(name)
    assert set(found["columns"]) == set(_COLUMNS)
    assert regressions([found], [reference[name]]) == []
    assert min(column["image_miou"] for column in reference[name]["columns"].values()) > 15  # above chance


def test_shipped_scenes_are_those_of_the_suite():
    sets = suite_sets("emoji_small", _SCENES)
    assert {c for c in CONDITIONS if c.split == "test"} == set(sets)
    for condition, data in sets.items():
        assert len(data) == 6 and len(data.classes) == 179
        shown = {data.classes[k] for k in set(data.truth(0).flatten().tolist()) if k >= 0}
        words = set(_group(condition.group))
        assert shown & words and len(shown - words) <= 1  # a texture


def _group(group: str) -> tuple[str, ...]:
    from ovseg.datasets.emoji import word_table

    return word_table().names(group)  # type: ignore[arg-type]


if __name__ == "__main__":
    _REFERENCE.write_text(json.dumps([_measured(name) for name in _ROWS], indent=1) + "\n", encoding="utf-8")
