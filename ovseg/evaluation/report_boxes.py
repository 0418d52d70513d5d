"""What is said about an evaluation of detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ovseg.evaluation.box_sets import BoxSet
from ovseg.evaluation.detections import DetectionEvaluation
from ovseg.evaluation.memory import peak_memory
from ovseg.evaluation.report import cell, percent, tail, versions

__all__ = ["boxes_to_markdown", "report_boxes"]


def report_boxes(
    evaluation: DetectionEvaluation,
    data: BoxSet,
    *,
    paper: Mapping[str, float] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Everything about an evaluation as JSON-ready data. Shares are in percent; None where undefined.

    Args:
        evaluation: The counts.
        data: What was evaluated on.
        paper: Published figures in percent by group.
        seconds: Wall time of the whole run, where it ran in one go.
    """
    precision, done = evaluation.precision, [r for r in evaluation.records if r.error is None]
    groups = {"all": None, **data.groups}
    rows = zip(data.vocabulary.names, precision.ap50, precision.ap, evaluation.counts)
    return {
        "groups": {
            name: {key: percent(value) for key, value in precision.mean(classes).items()}
            for name, classes in groups.items()
        },
        "paper": dict(paper) if paper else None,
        "top_k": None if evaluation.top_k is None else _top_k(evaluation, data),
        "classes": [
            {"name": name, "ap50": percent(ap50), "ap": percent(ap), "boxes": int(boxes)}
            for name, ap50, ap, boxes in rows
        ],
        "images": len(done),
        "boxes": int(evaluation.counts.sum()),
        "detections": sum(len(r.found.boxes) for r in done if r.found is not None),
        "left_out": [{"name": r.name, "reason": r.error} for r in evaluation.failures],
        "seconds_per_image": round(float(np.mean([r.seconds for r in done])), 4) if done else None,
        "seconds": None if seconds is None else round(seconds, 1),
        "peak_memory_mb": peak_memory(),
        "settings": dict(evaluation.settings),
        "versions": versions(),
    }


def _top_k(evaluation: DetectionEvaluation, data: BoxSet) -> dict[str, dict[str, float | None]]:
    top_k = evaluation.top_k
    assert top_k is not None
    groups = {"all": None, **data.groups}
    return {
        name: {key: percent(value) for key, value in top_k.compute(classes).items()}
        for name, classes in groups.items()
    }


def boxes_to_markdown(data: Mapping[str, Any]) -> str:
    """The same for people."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    settings, paper = data["settings"], data["paper"] or {}
    yield f"# {settings.get('model', 'A detector')} on {settings['data']} ({settings['split']})"
    yield ""
    yield "| classes | AP50, % | published | AP, % |" if paper else "| classes | AP50, % | AP, % |"
    yield "|---|---|---|---|" if paper else "|---|---|---|"
    for name, figures in data["groups"].items():
        published = f" {cell(paper.get(name))} |" if paper else ""
        yield f"| {name} | {cell(figures['ap50'])} |{published} {cell(figures['ap'])} |"
    if data["top_k"] is not None:
        yield from _top_k_lines(data["top_k"])
    yield ""
    yield (
        f"{data['images']} images, {data['boxes']} true boxes, {data['detections']} detections; "
        f"{cell(data['seconds_per_image'])} s per image; {data['peak_memory_mb']:.0f} MB at most."
    )
    yield from tail(data, "| class | AP50 | AP | boxes |", _class_line)


def _top_k_lines(groups: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    names = list(next(iter(groups.values())))
    titles = [
        name.replace("_macro", ", mean of classes").replace("_micro", ", of all boxes") for name in names
    ]
    yield ""
    yield "True boxes named right, %:"
    yield ""
    yield f"| classes | {' | '.join(titles)} |"
    yield "|---|" + "---|" * len(names)
    for group, figures in groups.items():
        yield f"| {group} | {' | '.join(cell(figures[name]) for name in names)} |"


def _class_line(row: Mapping[str, Any]) -> str:
    return f"| {row['name']} | {cell(row['ap50'])} | {cell(row['ap'])} | {row['boxes']} |"
