"""Curves of a training from its logs."""

from __future__ import annotations

import json
from pathlib import Path

from ovseg.training.curves import read_curves


def log(folder: Path, run: str, rows: list[dict[str, float]]) -> None:
    path = folder / run / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves_follow_the_run_that_was_gone_on_from(tmp_path):
    log(tmp_path, "20260101_000000", [{"loss": 9.0 - i, "lr": 1.0, "step": i} for i in range(1, 7)])
    log(tmp_path, "20260101_010000", [{"loss": 0.5, "step": 4}, {"val/x": 12.3456, "step": 4}])
    curves = read_curves(tmp_path)
    assert curves["loss"] == {"step": [1, 2, 3, 4], "value": [8, 7, 6, 0.5]}
    assert curves["lr"]["step"] == [1, 2, 3]
    assert curves["val/x"] == {"step": [4], "value": [12.35]}
    assert read_curves(tmp_path, most=2)["loss"]["step"] == [2, 4]
    assert read_curves(tmp_path / "nothing") == {}
