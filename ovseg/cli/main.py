"""Entry point of ``ovseg``: runs the sub-command; what goes wrong becomes one line and an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

import ovseg
from ovseg.cli import (
    check_data,
    compare,
    convert,
    demo,
    detect,
    doctor,
    explain,
    models,
    segment,
    train,
    video,
    vocab,
)
from ovseg.cli import eval as evaluation
from ovseg.cli.console import say, show_warning

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    demo, segment, detect, video, compare, explain, evaluation, train, check_data, convert, models, vocab,
    doctor,
)  # fmt: skip
"""Modules of the sub-commands, in the order of the help text."""

_PIPE_CLOSED = 141  # what a shell reports for a program that ends so


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv[1:]`` if None.

    Returns:
        The exit code: 0 done, 1 some inputs failed or something broke, 2 wrong use, 130 stopped with Ctrl-C,
        141 whoever read the output closed it.

    Raises:
        SystemExit: From argparse: ``--help``, ``--version``, or arguments it does not understand (code 2).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be valid UTF-8
    try:
        code = _run(_parser().parse_args(argv))
    except SystemExit:
        _flush()
        raise
    return _flush() or code


def _run(args: argparse.Namespace) -> int:
    try:
        with warnings.catch_warnings():
            if not args.debug:
                warnings.showwarning = show_warning
            return args.run(args)
    except BrokenPipeError:
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        say("ovseg: stopped; files written so far are complete")
        return 130
    except Exception as error:
        if args.debug:
            raise
        say(f"ovseg {args.command}: error: {_in_words(error)}")
        return 2 if isinstance(error, ValueError | FileNotFoundError) else 1


def _flush() -> int:
    """Writes out stdout, as the interpreter would at its end, without a traceback. Returns 0 or a code."""
    try:
        print(end="", flush=True)
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return _PIPE_CLOSED
        say(f"ovseg: error: stdout cannot be written ({error.strerror})")
        return 1


def _in_words(error: Exception) -> str:
    """Errors that we raise speak for themselves; of others the kind says more than the text."""
    if isinstance(error, ValueError | OSError | ImportError | NotImplementedError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovseg",
        description="Name your classes in plain words; get them segmented.",
        epilog="Exit codes: 0 done, 1 some inputs failed, 2 wrong use.",
    )
    parser.add_argument("--version", action="version", version=f"ovseg {ovseg.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = command.add_parser(subparsers)
        subparser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser
