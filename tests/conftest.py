"""Fixtures for all tests."""

from __future__ import annotations

import os

# Small tensors gain nothing from more threads, and tests of several processes get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
