"""The table of a suite's rows in Markdown. Read without torch, as the README is written from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["NOTE", "markdown_rows", "suite_table"]

NOTE = (
    "mIoU in percent, mean over scenes ± half its 95 % interval, drawings of an artist that no tower "
    "was trained on (but for a column that says so). *present*: the model is told which words are in the "
    "scene; *all words*: it chooses among all. A demonstration and a regression test on drawings: only rows "
    "on a tower that learned from image-text pairs alone (`emoji_pairs`) compare readouts fairly. Seconds: "
    "mean over all scenes with half its interval. MB: the peak over a process that has loaded the model and "
    "encoded the words."
)
"""What the figures are, and are not."""


def suite_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A page of the rows, the best on pairs-only towers first."""
    head = ["# EmojiScenes: all methods on the embedded towers", "", NOTE, ""]
    return "\n".join([*head, *markdown_rows(rows)]) + "\n"


def markdown_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of the table alone: rows on pairs-only towers first, then by the first column of the test artist.

    Args:
        rows: Of ``suite.json``. Time and memory may be None: they were not measured.
    """
    names = list(rows[0]["columns"])
    first = next(name for name in names if not name.startswith("train artists"))
    yield f"| model | {' | '.join(names)} | s / image | MB |"
    yield "|---|" + "---|" * (len(names) + 2)
    ranked = sorted(
        rows,
        key=lambda row: (not row["name"].endswith("emoji_pairs"), -row["columns"][first]["image_miou"]),
    )
    for row in ranked:
        cells = [_figure(row["columns"][name]) for name in names]
        seconds, memory = row.get("seconds_per_image"), row.get("peak_memory_mb")
        spread = f" ± {row['seconds_interval']:.2f}" if row.get("seconds_interval") is not None else ""
        cells += ["–" if seconds is None else f"{seconds:.2f}{spread}"]
        cells += ["–" if memory is None else f"{memory:.0f}"]
        yield f"| {row['name']} | {' | '.join(cells)} |"


def _figure(column: Mapping[str, float | None]) -> str:
    return " ± ".join(
        f"{value:.1f}" for key in ("image_miou", "interval") if (value := column[key]) is not None
    )
