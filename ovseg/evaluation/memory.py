"""Resident memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["current_memory", "forget_peak_memory", "peak_memory"]


def peak_memory() -> float:
    """Largest resident memory so far, or since ``forget_peak_memory``, in MB."""
    try:  # Linux carries the parent's peak over into a child's ru_maxrss; VmHWM is the process's own
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024, 1)
    except (OSError, StopIteration):
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
