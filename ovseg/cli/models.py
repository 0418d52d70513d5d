"""``ovseg models``: which models there are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["add_parser", "run"]

_COLUMNS = ("name", "method", "tower", "weights' licence", "code's licence", "note")


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "models",
        help="list the models",
        description="List the models for --model, with the licences of their weights and of the authors' "
        "code (ours is Apache-2.0). Into a file or pipe: one line each, columns apart by tabs.",
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="only names with this in them; * and ? stand for any characters",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints the table.

    Returns:
        0.

    Raises:
        ValueError: No name matches.
    """
    from ovseg.methods.registry import get_method, list_models, zoo

    pattern = args.pattern if set(args.pattern) & set("*?[") else f"*{args.pattern}*"
    rows = [zoo()[name] for name in list_models(pattern)]
    if not rows:
        raise ValueError(f"no model's name matches {args.pattern!r}; `ovseg models` lists all")
    cells = [
        (row.name, row.method, row.tower, row.licence, get_method(row.method).code_licence, row.note)
        for row in rows
    ]
    if sys.stdout.isatty():
        _print_table(cells)
    else:
        for line in cells:
            print("\t".join(line))
    return 0


def _print_table(cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
