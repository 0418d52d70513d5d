"""What is said about an evaluation: numbers in percent, where they come from, and what was left out."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import ovseg
from ovseg._files import atomic_path
from ovseg.evaluation.evaluate import Evaluation
from ovseg.evaluation.memory import peak_memory
from ovseg.evaluation.miou import ClassAreas, harmonic_mean
from ovseg.evaluation.sets import EvaluationSet

__all__ = [
    "cell", "image_mean", "percent", "report", "tail", "to_markdown", "versions", "write_report",
]  # fmt: skip

_PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "numpy", "opencv-python", "pycocotools", "onedl-mmengine",
    "onedl-mmcv", "onedl-mmsegmentation",
)  # fmt: skip


def report(
    evaluation: Evaluation, data: EvaluationSet, *, paper: float | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Everything about an evaluation as JSON-ready data. Shares are in percent; None where undefined.

    Args:
        evaluation: The counts.
        data: What was evaluated on.
        paper: The published mIoU in percent.
        seconds: Wall time of the whole run, where it ran in one go.
    """
    areas = evaluation.areas
    done = [record for record in evaluation.records if record.error is None]
    mean, half = image_mean(evaluation)
    return {
        "miou": percent(areas.mean_iou()),
        "paper": paper,
        "pixel_accuracy": percent(areas.pixel_accuracy),
        "mean_accuracy": percent(areas.mean_accuracy),
        "boundary_miou": percent(evaluation.boundary.mean_iou()),
        "calibration_error": percent(evaluation.calibration.error) if evaluation.calibration else None,
        "image_miou": percent(mean),
        "image_miou_interval": percent(half),
        "groups": _groups(areas, data.groups),
        "classes": _classes(areas, data.classes),
        "images": len(done),
        "left_out": [{"name": r.name, "reason": r.error} for r in evaluation.failures],
        "seconds_per_image": round(float(np.mean([r.seconds for r in done])), 4) if done else None,
        "seconds": None if seconds is None else round(seconds, 1),
        "peak_memory_mb": peak_memory(),
        "settings": dict(evaluation.settings),
        "versions": versions(),
    }


def image_mean(evaluation: Evaluation) -> tuple[float, float]:
    """Mean over images of each image's mIoU (over its labelled classes), and half its 95 % interval."""
    per_image = [r.areas.mean_iou_of_labelled() for r in evaluation.records if r.areas is not None]
    return mean_interval([value for value in per_image if not math.isnan(value)])


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half its 95 % interval; NaN where there are too few values for it."""
    if not values:
        return math.nan, math.nan
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), half


def _groups(areas: ClassAreas, groups: Mapping[str, tuple[int, ...]]) -> dict[str, float | None]:
    """mIoU by group, and the harmonic mean of base and novel where there are both."""
    means = {name: areas.mean_iou(classes) for name, classes in groups.items()}
    if {"base", "novel"} <= set(means):
        means["harmonic_mean"] = harmonic_mean([means["base"], means["novel"]])
    return {name: percent(value) for name, value in means.items()}


def _classes(areas: ClassAreas, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"name": name, "iou": percent(iou), "accuracy": percent(accuracy), "pixels": int(pixels)}
        for name, iou, accuracy, pixels in zip(names, areas.iou, areas.accuracy, areas.labelled)
    ]


def percent(share: float) -> float | None:
    """A share in percent; None (JSON has no NaN) where it is undefined."""
    return None if math.isnan(share) else round(100 * float(share), 3)


def versions() -> dict[str, str]:
    """Of this package, Python, the platform, and what figures may depend on."""
    found = {"ovseg": ovseg.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def to_markdown(data: Mapping[str, Any]) -> str:
    """The same for people."""
    settings = data["settings"]
    title = f"# {settings['model']} on {settings['data']} ({settings['split']})"
    rows = [("mIoU", "miou"), ("published mIoU", "paper"), ("pixel accuracy", "pixel_accuracy"),
            ("mean accuracy", "mean_accuracy"), ("boundary mIoU", "boundary_miou"),
            ("calibration error", "calibration_error"), ("mIoU, mean over images", "image_miou"),
            ("half of its 95 % interval", "image_miou_interval")]  # fmt: skip
    lines = [title, "", "| figure | % |", "|---|---|"]
    lines += [f"| {label} | {cell(data[key])} |" for label, key in rows if data[key] is not None]
    lines += [f"| mIoU, {name.replace('_', ' ')} | {cell(v)} |" for name, v in data["groups"].items()]
    lines += ["", f"{data['images']} images; {cell(data['seconds_per_image'])} s per image; "
              f"{data['peak_memory_mb']:.0f} MB at most."]  # fmt: skip
    lines += tail(data, "| class | IoU | accuracy | pixels |", _class_line)
    return "\n".join(lines) + "\n"


def _class_line(row: Mapping[str, Any]) -> str:
    return f"| {row['name']} | {cell(row['iou'])} | {cell(row['accuracy'])} | {row['pixels']} |"


def tail(data: Mapping[str, Any], head: str, class_line: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    """How every report ends: images left out, classes, settings, versions.

    Args:
        data: With ``left_out``, ``classes``, ``settings`` and ``versions``.
        head: Of the table of classes.
        class_line: Its rows.
    """
    if data["left_out"]:
        yield from ("", f"**{len(data['left_out'])} images left out:**", "")
        yield from (f"- {item['name']}: {item['reason']}" for item in data["left_out"])
    yield from ("", head, "|---" * (head.count("|") - 1) + "|")
    yield from (class_line(row) for row in data["classes"])
    yield from ("", "## Settings", "", *(f"- {key}: {value}" for key, value in data["settings"].items()))
    yield from ("", *(f"- {key} {value}" for key, value in data["versions"].items()))


def cell(value: float | None) -> str:
    """A number in a table; a dash for None."""
    return "–" if value is None else f"{value:.2f}"


def write_report(
    folder: Path,
    data: Mapping[str, Any],
    markdown: Callable[[Mapping[str, Any]], str] = to_markdown,
) -> list[Path]:
    """Writes ``report.json`` and ``report.md``; returns their paths.

    Args:
        folder: Where to.
        data: The report.
        markdown: The same for people.

    Raises:
        WriteError: The folder cannot be written.
    """
    texts = {"report.json": json.dumps(data, indent=1) + "\n", "report.md": markdown(data)}
    for name, text in texts.items():
        with atomic_path(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]
