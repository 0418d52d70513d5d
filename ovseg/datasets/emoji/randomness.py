"""Random numbers and sines that are the same on every machine.

Scenes must have the same pixels wherever they are drawn. So all random numbers come from numpy's frozen
legacy stream, without its normal distribution (which calls the system's logarithm), sines from a table
rounded to six digits, and pixels from elementwise arithmetic, never from matrix products or reductions,
whose order of summation depends on the processor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cosine", "random_state", "sine", "sine_of"]

_STEPS = 4096
_TABLE = np.array([round(math.sin(2 * math.pi * i / _STEPS), 6) for i in range(_STEPS)], np.float32)


def random_state(*key: int) -> np.random.RandomState:
    """An independent stream for each key of non-negative integers."""
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence(key)))


def sine(turns: NDArray[Any]) -> NDArray[np.float32]:
    """Sine of an array of angles in turns, from a table of 4096 steps."""
    return _TABLE[np.floor(turns * _STEPS).astype(np.int64) & (_STEPS - 1)]


def sine_of(degrees: float) -> float:
    """Sine of one angle in degrees, rounded to six digits."""
    return round(math.sin(math.radians(degrees)), 6)


def cosine(degrees: float) -> float:
    """Cosine of one angle in degrees, rounded to six digits."""
    return round(math.cos(math.radians(degrees)), 6)
