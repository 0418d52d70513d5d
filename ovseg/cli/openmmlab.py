"""OpenMMLab, imported without its chatter: stdout belongs to the results."""

from __future__ import annotations

import contextlib
import io

__all__ = ["import_openmmlab"]


def import_openmmlab() -> None:
    """Imports what prints while it is imported (mmseg names an optional package that is not there)."""
    with contextlib.redirect_stdout(io.StringIO()):
        import mmseg.datasets  # noqa: F401
