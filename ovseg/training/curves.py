"""Curves of a training, read from the logs of all its runs: for the model card, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg._files import atomic_path

__all__ = ["Curve", "plot_curves", "read_curves"]

Curve = Mapping[str, Sequence[float]]
"""``step`` and ``value``, of equal length."""

_LEFT_OUT = ("step", "iter", "base_lr", "time", "data_time", "memory")


def read_curves(work_dir: str | Path, most: int = 50) -> dict[str, Curve]:
    """What mmengine logged below a folder of work, by name of the figure.

    A resumed training has a log for each run. Where two tell of the same step, the later run holds; what a
    run did after the step that the next one went on from is left out.

    Args:
        work_dir: ``<work_dir>/<time>/vis_data/scalars.json`` are read; empty if there are none.
        most: Points of a curve; of longer ones every n-th is kept, and the last.
    """
    points: dict[str, dict[int, float]] = {}
    for path in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        start = min((row["step"] for row in rows), default=0)
        for curve in points.values():
            for step in [step for step in curve if step >= start]:
                del curve[step]
        for row in rows:
            for key, value in row.items():
                if key not in _LEFT_OUT:
                    points.setdefault(key, {})[row["step"]] = value
    return {key: _thinned(curve, most) for key, curve in sorted(points.items()) if curve}


def _thinned(curve: Mapping[int, float], most: int) -> Curve:
    steps = sorted(curve)
    every = -(-len(steps) // most)
    kept = steps[::-1][::every][::-1]  # the last one stays
    return {"step": kept, "value": [float(f"{curve[step]:.4g}") for step in kept]}


def plot_curves(curves: Mapping[str, Curve], path: str | Path) -> Path:
    """A picture of losses beside figures of evaluation (whose names have a slash).

    Args:
        curves: As ``read_curves`` gives them.
        path: Of a PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, curve in curves.items():
        if key.startswith("loss"):
            left.plot(curve["step"], curve["value"], label=key)
        elif "/" in key:
            right.plot(curve["step"], curve["value"], label=key, marker=".")
    for axes, title in ((left, "loss"), (right, "percent")):
        _describe(axes, title)
    left.set_yscale("log")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
    return Path(path)


def _describe(axes: Any, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if axes.get_lines():
        axes.legend(fontsize="small")
