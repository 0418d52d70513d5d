"""Many inputs through a predictor: what is skipped, written, recorded and reported."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ovseg.cli.console import progress, say
from ovseg.cli.manifest import Manifest, settings_of
from ovseg.cli.outputs import write_result

if TYPE_CHECKING:
    from ovseg.inference.results import DetResult, Failure, SegResult
    from ovseg.inference.source_files import SourceFile, SourceFiles
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Batch", "add_batch_options", "add_inputs", "find_inputs"]

_MOST_FAILURES = 20  # listed again at the end; the manifest has all


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds the inputs."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders, patterns in quotes, or - for a list on stdin (a name a line, or apart by NULs)",
    )


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--resume`` and ``--fail-fast``."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip what an earlier run with the same settings has written (it is in manifest.jsonl)",
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first input that fails")


def find_inputs(names: Sequence[str]) -> SourceFiles:
    """The files that the inputs stand for.

    Raises:
        ValueError: There are none; see ``expand_sources``.
    """
    from ovseg.inference.source_files import expand_sources

    return expand_sources([name for text in names for name in (_listed() if text == "-" else [text])])


def _listed() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("- reads a list of files from stdin, but stdin is a terminal; pipe one in")
    text = sys.stdin.read()
    names = [name for name in (text.split("\0") if "\0" in text else text.splitlines()) if name.strip()]
    if not names:
        raise ValueError("the list of files on stdin is empty")
    return names


@dataclass
class Batch:
    """What became of the inputs.

    Attributes:
        args: Of the command line.
        sources: The inputs.
        vocabulary: The classes.
        done: How many are written.
        skipped: How many were done before.
        failed: How many failed.
        failures: One line for each of the first that failed.
        seconds: Wall time.
    """

    args: argparse.Namespace
    sources: SourceFiles
    vocabulary: Vocabulary
    done: int = 0
    skipped: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._manifest: Manifest | None = Manifest(self.args.out, settings_of(self.args, self.vocabulary))
        if self.args.resume:
            total, done = len(self.sources), self._manifest.done(self.args.format)
            self.sources = self.sources.select(lambda source: not done(source))
            self.skipped = total - len(self.sources)

    def run(
        self, description: str, predict: Callable[[Iterable[SourceFile]], Iterator[Any]]
    ) -> Iterator[SegResult | DetResult]:
        """Predicts, writes and records each input; gives the results that are written."""
        start = time.perf_counter()
        with progress(description, len(self.sources)) as advance:
            for source, result in zip(self.sources, predict(self.sources), strict=True):
                problem = write_result(result, source, self.args)
                self._record(source, result, problem)
                if problem is None:
                    self.done += 1
                    yield result
                else:
                    self.failed += 1
                    if len(self.failures) < _MOST_FAILURES:
                        self.failures.append(problem)
                advance()
                if problem and self.args.fail_fast:
                    break
        self.seconds = time.perf_counter() - start

    def report(self, more: str = "") -> int:
        """Says how it went. Returns the exit code."""
        if self.failed > 1:
            say(f"{self.failed} failed:")
            for line in self.failures:
                say(f"  {line}")
            if more_failed := self.failed - len(self.failures):
                say(f"  and {more_failed} more; {self.args.out / 'manifest.jsonl'}")
        counts = [f"{self.done} done", f"{self.failed} failed"]
        if self.skipped:
            counts.append(f"{self.skipped} skipped")
        tried = self.done + self.failed
        if left := len(self.sources) - tried:
            counts.append(f"{left} not tried (--fail-fast)")
        say(f"{', '.join(counts)}{more}, {self.seconds / max(tried, 1):.2f} s per image")
        return 1 if self.failed else 0

    def _record(
        self, source: SourceFile, result: SegResult | DetResult | Failure, problem: str | None
    ) -> None:
        if self._manifest is None:
            return
        try:
            self._manifest.add(source, self.args.format, getattr(result, "seconds", None), problem)
        except OSError as error:
            if problem is None:  # else what is wrong with the folder has been said
                say(f"warning: {error}")
            self._manifest = None
