"""What people see: messages, progress and tables, all on stderr. stdout belongs to the results.

rich is imported when something is shown: it takes as long as the rest of ``ovseg --help``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["progress", "say", "share_table", "show_warning"]

_MOST_ROWS = 20  # of a table of classes; more scroll the rest away


def say(message: str) -> None:
    """Prints one message for people."""
    print(message, file=sys.stderr, flush=True)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """``warnings.showwarning`` for people: one line each."""
    if category is UserWarning:
        say(f"warning: {message}")


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar, shown where stderr is a terminal.

    Args:
        description: What is being done.
        total: Number of steps; None where nobody knows.

    Yields:
        A function that counts one step as done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True)  # a long path stays in one piece
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Else what goes to a terminal's stdout breaks the bar; and what goes to a file must not be redirected.
    redirect = sys.stdout is not None and sys.stdout.isatty()
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden, redirect_stdout=redirect) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


def share_table(
    vocabulary: Vocabulary, shares: Mapping[str, float], unlabelled: float, title: str | None = None
) -> None:
    """Prints which class covers how much of the area, largest first, each with its colour.

    Args:
        vocabulary: Gives the colours.
        shares: Fraction of the area, 0 to 1, by class. Classes that are not in it get no row.
        unlabelled: Fraction without a class.
        title: Shown above.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {item.name: "rgb({},{},{})".format(*item.colour) for item in vocabulary.classes}
    rows = sorted(shares.items(), key=lambda row: -row[1])
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column()
    table.add_column("class")
    table.add_column("area", justify="right")
    for name, share in rows[:_MOST_ROWS]:
        table.add_row(Text("██", style=colours[name]), Text(name), _percent(share))
    if len(rows) > _MOST_ROWS:
        rest = rows[_MOST_ROWS:]
        table.add_row("", f"({len(rest)} more)", _percent(sum(share for _, share in rest)))
    table.add_row("", "(unlabelled)", _percent(unlabelled))
    Console(stderr=True).print(table)


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"
