"""Writes the table of the offline benchmark into README.md, from a stored suite.json.

ovseg eval --suite emoji
python tools/suite_table.py ovseg_eval/suite.emoji/suite.json   (stores it as docs/emoji_suite.json)
python tools/suite_table.py                                     (writes the tables again)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ovseg._files import atomic_path
from ovseg.evaluation.suite_table import NOTE, markdown_rows

__all__ = ["REFERENCE", "with_suite"]

_ROOT = Path(__file__).resolve().parents[1]
REFERENCE = _ROOT / "docs" / "emoji_suite.json"
_README = _ROOT / "README.md"
_BEGIN, _END = "<!-- suite: written by tools/suite_table.py -->", "<!-- end of suite -->"


def with_suite(text: str) -> str:
    """``text`` with what stands between its two marks brought up to date.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(
            f"put the lines {_BEGIN!r} and {_END!r} where the table shall stand: they are missing"
        )
    rows = json.loads(REFERENCE.read_text(encoding="utf-8"))
    scenes = sorted({row["images"] for row in rows})
    note = f"{NOTE} {' or '.join(map(str, scenes))} scenes a column."
    machines = sorted(
        {
            f"{row['threads']} thread{'s' * (row['threads'] > 1)} of an {row['cpu']}"
            for row in rows
            if "threads" in row
        }
    )
    note += f" Times on {' or '.join(machines)}." if machines else ""
    table = "\n".join([note, "", *markdown_rows(rows)])
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", type=Path, nargs="?", metavar="SUITE_JSON", help="a run to store first")
    parser.add_argument(
        "--no-speed", action="store_true", help="leave out time and memory: the machine was not idle"
    )
    args = parser.parse_args(argv)
    if args.suite is not None:
        rows = json.loads(args.suite.read_text(encoding="utf-8"))
        if args.no_speed:
            rows = [
                {**row, "seconds_per_image": None, "seconds_interval": None, "peak_memory_mb": None}
                for row in rows
            ]
        with atomic_path(REFERENCE) as path:
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    _README.write_text(with_suite(_README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
