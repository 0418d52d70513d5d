"""Peaks of memory that are over do not count."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ovseg.evaluation.memory import current_memory, forget_peak_memory

SCRIPT = """
from ovseg.evaluation.memory import current_memory, forget_peak_memory, peak_memory
large = b"x" * (200 << 20)
del large
assert forget_peak_memory()
before = current_memory()
small = b"x" * (50 << 20)
print(peak_memory() - before)
"""


@pytest.mark.skipif(not forget_peak_memory(), reason="needs Linux's /proc/self/clear_refs")
def test_peak_since_it_was_forgotten():
    assert current_memory() > 1
    run = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert 45 < float(run.stdout) < 80
