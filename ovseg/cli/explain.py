"""``ovseg explain``: see ``ovseg.cli.compare``, with which it shares its options."""

from __future__ import annotations

from ovseg.cli.compare import add_explain_parser as add_parser
from ovseg.cli.compare import run_explain as run

__all__ = ["add_parser", "run"]
