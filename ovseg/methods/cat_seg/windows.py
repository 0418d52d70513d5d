"""Windows of the spatial attention (Swin), regular and shifted, as rectangles of the grid.

Swin shifts windows by rolling the grid, and masks pairs of cells that the roll brought together. What remains
is attention within rectangles: whole windows inside, cut ones along the border. Attending in the rectangles
gives the same without roll or mask, and without the work on masked pairs: 7/16 of it on a grid of two by two
windows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Windows", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """A grid cut into rectangles.

    Attributes:
        rows: Heights of the bands of rectangles, top to bottom, in cells.
        cols: Widths of the bands, left to right.
        groups: For each shape that a rectangle has, the rectangles (row band, column band).
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    groups: tuple[tuple[tuple[int, int], ...], ...]

    def cut(self, x: Tensor) -> list[Tensor]:
        """(n, h, w, C) to a tensor (m, n, N, C) per group: m rectangles of N cells."""
        bands = [row.split(self.cols, dim=2) for row in x.split(self.rows, dim=1)]
        return [torch.stack([bands[i][j] for i, j in group]).flatten(2, 3) for group in self.groups]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Inverse of ``cut``."""
        placed = {
            (i, j): rectangle.unflatten(1, (self.rows[i], self.cols[j]))
            for group, part in zip(self.groups, parts)
            for (i, j), rectangle in zip(group, part.unbind())
        }
        return torch.cat(
            [torch.cat([placed[i, j] for j in range(len(self.cols))], dim=2) for i in range(len(self.rows))],
            dim=1,
        )


@cache
def windows_of(grid: tuple[int, int], window: int, shifted: bool) -> Windows:
    """The rectangles of one block.

    Args:
        grid: (h, w).
        window: Cells along the side of a window. A grid that is no larger is not shifted, and its windows
            have the length of its shorter side.
        shifted: By half a window.
    """
    shift = window // 2 if shifted else 0
    if min(grid) <= window:
        window, shift = min(grid), 0
    rows, cols = (_bands(side, window, shift) for side in grid)
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for i, height in enumerate(rows):
        for j, width in enumerate(cols):
            groups[height, width].append((i, j))
    return Windows(rows, cols, tuple(map(tuple, groups.values())))


def _bands(side: int, window: int, shift: int) -> tuple[int, ...]:
    starts = [0, *range(shift or window, side, window), side]
    return tuple(end - start for start, end in pairwise(starts))
