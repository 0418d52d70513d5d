"""Startup: what a user waits for before anything happens. Whole processes, wall time."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ovseg.benchmark.harness import record, time_command

__all__ = ["run"]


def run() -> Iterator[dict[str, Any]]:
    """Yields ``import ovseg``, ``ovseg --help`` (beside a bare interpreter) and the warm demo."""
    python = [sys.executable]
    yield record("startup.python", ours_ms=time_command([*python, "-c", "pass"]))
    yield record("startup.import", ours_ms=time_command([*python, "-c", "import ovseg"]))
    yield record("startup.help", ours_ms=time_command([*python, "-m", "ovseg", "--help"]))
    with tempfile.TemporaryDirectory() as folder:
        demo = [*python, "-m", "ovseg", "demo", "--out", folder]
        yield record("startup.demo", ours_ms=time_command(demo, repeats=3))
