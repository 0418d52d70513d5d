"""OpenMMLab, imported without its chatter: stdout belongs to the results."""

from __future__ import annotations

import contextlib
import io

__all__ = ["import_openmmlab"]


def import_openmmlab(components: bool = False) -> None:
    """Imports what prints while it is imported: mmseg and mmdet name an optional package that is not there.

    Args:
        components: Import mmdet and ours for both too, which configs need and which take seconds.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        import mmseg.datasets  # noqa: F401

        if components:
            import ovseg.models  # noqa: F401
