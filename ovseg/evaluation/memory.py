"""Resident memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["current_memory", "forget_peak_memory", "peak_memory"]


def peak_memory() -> float:
    """Largest resident memory so far, or since ``forget_peak_memory``, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def current_memory() -> float | None:
    """Resident memory now, in MB; None on systems without ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * resource.getpagesize() / (1 << 20), 1)


def forget_peak_memory() -> bool:
    """Starts ``peak_memory`` anew; returns whether the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
