"""Writing results of many inputs: options, and one result at a time."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.console import say
from ovseg.inference.writers import Kind, list_writers, output_path, writer

if TYPE_CHECKING:
    from ovseg.inference.results import DetResult, Failure, SegResult
    from ovseg.inference.source_files import SourceFile

__all__ = ["add_output_options", "write_result"]


def add_output_options(parser: argparse.ArgumentParser, kind: Kind, default: Sequence[str]) -> None:
    """Adds ``--out`` and ``--format``."""
    parser.add_argument(
        "--out", type=Path, default=Path("ovseg_out"), metavar="DIR", help="(default: ovseg_out)"
    )
    parser.add_argument(
        "--format",
        type=_formats(kind),
        default=list(default),
        metavar="LIST",
        help=f"comma-separated, of {', '.join(list_writers(kind))} (default: {','.join(default)})",
    )


def write_result(
    result: SegResult | DetResult | Failure, source: SourceFile, args: argparse.Namespace
) -> str | None:
    """Writes one result in all formats and prints the paths, or says what went wrong.

    Returns:
        What went wrong, in one line; None if all is written.
    """
    from ovseg._files import WriteError
    from ovseg.inference.results import Failure

    if isinstance(result, Failure):
        say(f"failed: {result.message}")
        if args.debug:
            traceback.print_exception(result.error)
        return result.message
    try:
        for format in args.format:
            path, *_ = writer(format).write_any(result, output_path(args.out, source.relative, format))
            print(path, flush=True)
    except (WriteError, ValueError) as error:  # the latter: the format does not hold this result
        say(f"failed: {source}: {error}")
        return f"{source}: {error}"
    return None


def _formats(kind: Kind) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in names:
            if name not in list_writers(kind):
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(list_writers(kind))}")
        return names

    return parse
