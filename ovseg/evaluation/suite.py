"""The offline benchmark: every method that runs on an embedded tower, on drawings of an artist it never saw.

It is a demonstration and a regression test. Only among models on a tower trained on image-text pairs alone
does it compare readouts fairly: the other embedded tower has learned from masks.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ovseg
from ovseg._files import atomic_path
from ovseg.evaluation.suite_table import suite_table
from ovseg.methods.registry import is_emoji, zoo
from ovseg.towers.table import ASSETS

if TYPE_CHECKING:
    from ovseg.datasets.emoji import Drawings, Split, WordGroup
    from ovseg.evaluation.sets import EvaluationSet
    from ovseg.inference.predictor import Predictor

__all__ = [
    "CONDITIONS",
    "SUITES",
    "Condition",
    "measure",
    "measure_sets",
    "regressions",
    "run_suite",
    "suite_rows",
    "suite_sets",
]

SUITES = ("emoji", "emoji_small")
"""All columns on scenes that are drawn; and those of the test artist on the few scenes that are shipped."""

_WORDS: tuple[WordGroup, ...] = ("base", "novel", "unknown")
_SHIPPED = ASSETS / "emoji_test"


@dataclass(frozen=True)
class Condition:
    """One column of the table.

    Attributes:
        name: Of the column.
        split: Whose drawings.
        group: Which words are drawn.
        present: Whether a model is told which words and texture are in each scene; else it chooses among all
            words and textures.
    """

    name: str
    split: Split
    group: WordGroup
    present: bool


CONDITIONS: tuple[Condition, ...] = (
    Condition("train artists, base, present", "train", "base", True),
    *(
        Condition(f"{group}, {'present' if present else 'all words'}", "test", group, present)
        for group in _WORDS
        for present in (True, False)
    ),
)
"""Columns; all but the first show the held-out artist."""


def suite_rows() -> list[str]:
    """Names of the zoo's models on embedded towers."""
    return [name for name, row in zoo().items() if is_emoji(row.tower)]


def suite_sets(
    suite: str, images: int, drawings: Drawings | None = None
) -> Mapping[Condition, EvaluationSet]:
    """What each column of a suite is measured on.

    Args:
        suite: One of ``SUITES``.
        images: Scenes for each column; of the shipped ones there are six.
        drawings: Read from the cache folder by default; the shipped scenes need none.

    Raises:
        FileNotFoundError: The drawings have not been prepared.
        ValueError: There is no such suite.
    """
    from ovseg.datasets.emoji import Drawings
    from ovseg.evaluation.sets import emoji_set, open_set

    if suite not in SUITES:
        raise ValueError(f"unknown suite {suite!r}; there are: {', '.join(SUITES)}")
    if suite == "emoji_small":
        shipped = [condition for condition in CONDITIONS if condition.split == "test"]
        return {condition: open_set(str(_SHIPPED / condition.group)) for condition in shipped}
    drawings = drawings or Drawings.load()
    return {
        condition: emoji_set(
            condition.split, (condition.group,), length=images, classes=_WORDS, drawings=drawings
        )
        for condition in CONDITIONS
    }


def run_suite(
    folder: Path,
    *,
    suite: str = "emoji",
    images: int = 24,
    rows: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Measures every row in a process of its own, and writes ``suite.json`` and ``suite.md``.

    Rows that an earlier run has measured, with as many images, weights and protocol being equal, are taken
    from ``folder``.

    Args:
        folder: Where to.
        suite: One of ``SUITES``.
        images: Scenes for each column.
        rows: Names of models; by default ``suite_rows()``.
        say: Told about each row.

    Returns:
        Paths of the two files.

    Raises:
        FileNotFoundError: The drawings have not been prepared.
        ValueError: There is no such suite.
    """
    suite_sets(suite, images)  # says at once what is missing
    names = suite_rows() if rows is None else list(rows)
    found = []
    for name in names:
        say(f"measuring {name}")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            row = pool.submit(_measure_row, name, suite, images, folder).result()
        _write(folder / f"{name}.json", json.dumps(row, indent=1) + "\n")
        found.append(row)
        _write(folder / "suite.json", json.dumps(found, indent=1) + "\n")  # a stopped run has a table too
        _write(folder / "suite.md", suite_table(found))
    return [folder / "suite.json", folder / "suite.md"]


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _measure_row(name: str, suite: str, images: int, folder: Path) -> dict[str, Any]:
    from ovseg.evaluation.memory import current_memory, forget_peak_memory, peak_memory
    from ovseg.vocab.cache import weights_hash

    warnings.simplefilter("ignore", UserWarning)  # of words that a small tower confuses: the table shows it
    predictor, sets = ovseg.load(name, device="cpu"), suite_sets(suite, images)
    images = min(images, *map(len, sets.values()))
    key = {
        "images": images,
        "version": ovseg.__version__,
        "weights": weights_hash(predictor.model)[:16],
        "protocol": sha256(repr(predictor.protocol).encode()).hexdigest()[:16],
    }
    path = folder / f"{name}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if all(stored.get(name) == value for name, value in key.items()):
        return stored
    predictor.set_vocabulary(next(iter(sets.values())).vocabulary)  # so that what follows is the method alone
    before = current_memory() if forget_peak_memory() else None
    found = measure_sets(
        predictor, sets, images, folder / "records" / f"{name}.{key['weights']}.{key['protocol']}"
    )
    memory = None if before is None else round(peak_memory() - before, 1)
    return {**found, **key, "peak_memory_mb": memory}


def measure(
    predictor: Predictor, drawings: Drawings, images: int, folder: Path | None = None
) -> dict[str, Any]:
    """One row of the suite ``emoji``, see ``measure_sets``.

    Args:
        predictor: The model.
        drawings: All of them.
        images: Scenes for each condition.
        folder: Where records go, by which an interrupted row goes on.
    """
    return measure_sets(predictor, suite_sets("emoji", images, drawings), images, folder)


def measure_sets(
    predictor: Predictor,
    sets: Mapping[Condition, EvaluationSet],
    images: int | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """For each condition the mean over scenes of the mIoU, in percent, with half its 95 % interval.

    Args:
        predictor: The model.
        sets: What is shown to it.
        images: Scenes for each condition; all by default.
        folder: Where records go, by which an interrupted row goes on.

    Returns:
        ``name``, ``columns`` (figures by the name of the condition), ``seconds_per_image`` with half its 95 %
        interval, on how many threads of which processor.

    Raises:
        RuntimeError: A scene could not be segmented.
    """
    import torch

    from ovseg.benchmark.harness import cpu_name
    from ovseg.evaluation.evaluate import evaluate
    from ovseg.evaluation.report import image_mean, mean_interval, percent

    columns, seconds = {}, []
    for condition, data in sets.items():
        where = None if folder is None else folder / condition.name.replace(", ", ".").replace(" ", "_")
        found = evaluate(predictor, data, folder=where, limit=images, present_only=condition.present)
        assert found is not None  # one process
        if found.failures:
            raise RuntimeError(f"{predictor.name}: {found.failures[0].error}")
        mean, half = image_mean(found)
        columns[condition.name] = {
            "image_miou": percent(mean),
            "interval": percent(half),
            "miou": percent(found.areas.mean_iou()),
        }
        seconds += [record.seconds for record in found.records]
    mean, half = mean_interval(seconds)
    return {
        "name": predictor.name,
        "columns": columns,
        "seconds_per_image": round(mean, 4),
        "seconds_interval": round(half, 4),
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
    }


def regressions(
    rows: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]], points: float = 1.0
) -> list[str]:
    """Figures that fell by more than some points against an earlier ``suite.json``, in words.

    Args:
        rows: Of this run.
        reference: Of the earlier one, with as many images.
        points: Percentage points that may be lost.

    Raises:
        ValueError: The two do not measure the same number of scenes.
    """
    fallen, now = [], {row["name"]: row for row in rows}
    for old in reference:
        row = now.get(old["name"])
        if row is None:
            fallen.append(f"{old['name']} is gone")
            continue
        if row["images"] != old["images"]:
            raise ValueError(f"{old['images']} scenes before, {row['images']} now: run as many (--limit)")
        for name, column in old["columns"].items():
            value = row["columns"][name]["image_miou"]
            if value < column["image_miou"] - points:
                fallen.append(f"{old['name']}, {name}: {column['image_miou']:.1f} -> {value:.1f}")
    return fallen
