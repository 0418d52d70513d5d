"""The suite on EmojiScenes: columns, rows, resuming, the table."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("mmseg")

from dataclasses import replace

from emoji_fakes import fake_drawings, write_fake_drawings

import ovseg
from ovseg.evaluation import suite
from ovseg.evaluation.suite_table import suite_table
from ovseg.methods.method import EMOJI_PROTOCOL


@pytest.fixture(scope="module")
def drawings():
    return fake_drawings()


def test_a_row_has_every_column(tiny_clip, drawings, tmp_path):
    protocol = replace(EMOJI_PROTOCOL, crop=None, stride=None)
    predictor = ovseg.build("maskclip", tiny_clip, protocol=protocol)
    row = suite.measure(predictor, drawings, 1, tmp_path)
    assert set(row["columns"]) == {condition.name for condition in suite.CONDITIONS}
    assert len(suite.CONDITIONS) == 7
    for name in ("base", "novel", "unknown"):
        few, all_ = (row["columns"][f"{name}, {kind}"]["image_miou"] for kind in ("present", "all words"))
        assert 0 <= all_ <= few <= 100
    assert suite.measure(predictor, drawings, 1, tmp_path)["columns"] == row["columns"]  # from its records


def fake_row(name, images, folder):
    column = {"image_miou": 10.0 + len(name), "interval": 1.0, "miou": 9.0}
    columns = {condition.name: column for condition in suite.CONDITIONS}
    return {
        "name": name, "images": images, "version": ovseg.__version__, "columns": columns,
        "seconds_per_image": 0.5, "peak_memory_mb": 123.4,
    }  # fmt: skip


class InProcess:
    """In place of a pool of one process."""

    def __init__(self, *args, **kwargs): ...
    def __enter__(self):
        return self

    def __exit__(self, *error): ...
    def submit(self, function, *args):
        value = function(*args)
        return type("Done", (), {"result": lambda self: value})()


def test_rows_are_measured_once(tmp_path, monkeypatch, tiny_clip):
    measured = []

    def measure(predictor, sets, images, folder):
        measured.append(folder.name)
        return fake_row(predictor.name, images, folder)

    write_fake_drawings(tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(suite, "ProcessPoolExecutor", InProcess)
    monkeypatch.setattr(suite, "measure_sets", measure)
    monkeypatch.setattr(ovseg, "load", lambda name, **k: ovseg.build("maskclip", tiny_clip), raising=False)
    options = {"rows": ["a_vit_tiny.emoji"], "say": lambda text: None}
    paths = suite.run_suite(tmp_path / "out", images=2, **options)
    suite.run_suite(tmp_path / "out", images=2, **options)
    assert len(measured) == 1
    suite.run_suite(tmp_path / "out", images=3, **options)
    assert len(measured) == 2
    with torch.no_grad():
        tiny_clip.model.visual.proj.add_(1)
    suite.run_suite(tmp_path / "out", images=3, **options)
    assert len(measured) == 3
    assert len(set(measured)) == 2  # other weights, other records
    assert "maskclip" in paths[1].read_text()


def test_figures_that_fell():
    before, now = (json.loads(json.dumps([fake_row(name, 2, None) for name in "ab"])) for _ in range(2))
    name = suite.CONDITIONS[0].name
    now[0]["columns"][name]["image_miou"] -= 0.9
    assert suite.regressions(now, before) == []
    now[0]["columns"][name]["image_miou"] -= 0.2
    assert suite.regressions(now, before) == [f"a, {name}: 11.0 -> 9.9"]
    assert suite.regressions(now[1:], before) == ["a is gone"]
    with pytest.raises(ValueError, match="--limit"):
        suite.regressions([fake_row("a", 3, None)], before)


def test_table_ranks_fair_rows_first():
    rows = [fake_row(name, 2, None) for name in ("x.emoji", "long_name.emoji", "y.emoji_pairs")]
    lines = [line for line in suite_table(rows).splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines] == [
        "model", "y.emoji_pairs", "long_name.emoji", "x.emoji"
    ]  # fmt: skip
    assert "23.0 ± 1.0" in lines[1]
    assert "| 0.50 | 123 |" in lines[1]


def test_every_row_of_the_suite_is_embedded():
    rows = suite.suite_rows()
    assert "maskclip_vit_tiny.emoji" in rows
    assert all(".emoji" in row for row in rows)
