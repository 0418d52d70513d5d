"""ResCLIP's semantic feedback: from a label for each patch to how much patches belong together."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["feedback_map"]


def feedback_map(
    labels: Tensor,
    std: float,
    path: Literal["whole", "shortened"] | None = "whole",
    smoothing: Literal["grid", "flat"] = "grid",
) -> Tensor:
    """How much patches belong together by their labels.

    Args:
        labels: (B, h, w) integers.
        std: Deviation of the smoothing in patches.
        path: Where another label lies on the line between two patches of one label, they count less, the
            less the farther apart they are: see ``ResCLIP``. None: they count in full.
        smoothing: See ``ResCLIP``.

    Returns:
        (B, h * w, h * w); every row sums to 1.
    """
    grid = (labels.shape[1], labels.shape[2])
    flat = labels.flatten(1)
    same = (flat[:, :, None] == flat[:, None]).float()
    if path is not None:
        same = same * _path_weights(flat, grid, path)
    smooth = _smooth_flat(same, std) if smoothing == "flat" else _smooth_grid(same, grid, std)
    return smooth / (smooth.sum(dim=2, keepdim=True) + 1e-8)


def _path_weights(flat: Tensor, grid: tuple[int, int], path: str) -> Tensor:
    """(B, N, N): 1 where the line from patch to patch keeps the label, else exp(-distance / farthest)."""
    device, labels = flat.device, flat.to(torch.int32)
    place = torch.cartesian_prod(*(torch.arange(n, device=device, dtype=torch.float32) for n in grid))
    start, end = place[:, None], place[None]  # (N, 1, 2), (1, N, 2)
    distance = (end - start).abs().amax(dim=2)  # (N, N) in king's moves
    farthest = max(int(distance.max()), 1)
    kept = torch.ones(len(flat), *distance.shape, dtype=torch.bool, device=device)
    # The authors walk the first `distance` of `farthest` equal parts: the whole line only for the farthest.
    parts = distance.clamp(min=1) if path == "whole" else torch.full_like(distance, farthest)
    for step in range(1, farthest + 1):
        share = (step / parts).clamp(max=1)[..., None]
        row, col = (start * (1 - share) + end * share).round().long().unbind(dim=2)
        kept &= (labels[:, row * grid[1] + col] == labels[:, :, None]) | (step > distance)
    return torch.where(kept, 1.0, torch.exp(-distance / farthest))


def _smooth_flat(same: Tensor, std: float) -> Tensor:
    """A Gaussian along the flattened index of the second patch, zeros beyond the ends."""
    count = same.shape[2]
    taps = min(count, int(6 * std + 1))
    taps += 1 - taps % 2
    steps = torch.arange(taps, device=same.device) - taps // 2
    kernel = torch.exp(-(steps**2) / (2 * std**2))
    smooth = F.conv1d(same.reshape(-1, 1, count), (kernel / kernel.sum()).view(1, 1, -1), padding=taps // 2)
    return smooth.view_as(same)


def _smooth_grid(same: Tensor, grid: tuple[int, int], std: float) -> Tensor:
    """A Gaussian over the grid of the second patch."""
    rows, cols = (_gaussian(n, std, same.device) for n in grid)
    return (rows @ same.unflatten(2, grid) @ cols).flatten(2)


def _gaussian(count: int, std: float, device: torch.device) -> Tensor:
    """(n, n) symmetric weights."""
    steps = torch.arange(count, device=device, dtype=torch.float32)
    return torch.exp(-((steps[:, None] - steps) ** 2) / (2 * std**2))
