"""Bilinear interpolation from the cells of windows to pixels, along one axis at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ovseg.dense.windows import Span

__all__ = ["Axis", "Tile", "interpolated", "kept_axis", "needed_taps", "resampled"]

_KEPT_ELEMENTS = 1 << 20  # of an axis: 4 MB

_Taps = tuple[Tensor, Tensor, Tensor]
Tile = tuple[slice, slice]


@dataclass(frozen=True)
class Axis:
    """Interpolation along one axis from the cells of all windows, overlaps averaged."""

    weights: Tensor  # (pixels, windows * cells)
    first: list[int]  # first cell that each pixel needs
    last: list[int]
    cells: int  # of one window

    @classmethod
    def of(
        cls, spans: Sequence[Span], cells: int, size: int, output: int | None, device: torch.device
    ) -> Axis:
        """To the pixels of the resized image, or on to those of the output.

        Raises:
            ValueError: Some pixel lies in no window.
        """
        weights = torch.zeros(size, len(spans) * cells)
        for i, span in enumerate(spans):
            low, high = max(span.low, 0), min(span.high, size)
            pixels = slice(low - span.start, high - span.start)
            part = weights[low:high, i * cells : (i + 1) * cells]
            _add_taps(part, _taps(cells, span.length, pixels))
            if span.taper:
                part *= _tent(span)[low - span.low : high - span.low, None]
        count = weights.sum(dim=1, keepdim=True)
        if not any(span.taper for span in spans):
            count = count.round()
        if not count.all():
            raise ValueError("the windows of a score field must cover the whole image")
        weights /= count
        if output not in (None, size):
            weights = _interpolate(weights, _taps(size, output))
        used = (weights != 0).int()
        first, reverse = used.argmax(dim=1), used.flip(1).argmax(dim=1)
        last = weights.shape[1] - 1 - reverse
        return cls(weights.to(device), first.tolist(), last.tolist(), cells)

    def band(self, pixels: slice) -> tuple[Tensor, slice]:
        """Weights of some pixels, cut to the cells that they need, and the range of those cells."""
        cells = self.needed(pixels)
        return self.weights[pixels, cells], cells

    def needed(self, pixels: slice) -> slice:
        """The range of the cells that some pixels need."""
        return slice(min(self.first[pixels]), max(self.last[pixels]) + 1)

    def windows(self, pixels: slice) -> Iterator[tuple[Tensor, slice, Tensor]]:
        """Each window's own interpolation, its cells, and its share in the average of each pixel."""
        for first in range(0, self.weights.shape[1], self.cells):
            cells = slice(first, first + self.cells)
            part = self.weights[pixels, cells]
            share = part.sum(dim=1)
            if share.any():
                yield part / share.clamp(min=1e-12)[:, None], cells, share


def kept_axis(
    spans: tuple[Span, ...], cells: int, size: int, output: int | None, device: torch.device
) -> Axis:
    """As ``Axis.of``. Images of one size have the same axes: some are kept, if they are not large."""
    small = max(size, output or 0) * len(spans) * cells <= _KEPT_ELEMENTS
    with torch.inference_mode(False):  # kept tensors may meet one that needs gradients
        return (_kept if small else Axis.of)(spans, cells, size, output, device)


_kept = lru_cache(maxsize=8)(Axis.of)


def interpolated(cells: Tensor, row_weights: Tensor, col_weights: Tensor) -> Tensor:
    """Separable interpolation of (a, Q, b) by (rows, a) and (columns, b) to (rows, Q, columns)."""
    stretched = row_weights @ cells.flatten(1)
    return (stretched.view(-1, cells.shape[2]) @ col_weights.T).view(len(row_weights), cells.shape[1], -1)


def _taps(cells: int, length: int, pixels: slice = slice(None)) -> _Taps:
    """Bilinear interpolation (align_corners False) of ``cells`` to ``length`` pixels along one axis.

    Returns:
        For some of the pixels: both neighbours and the share of the second. Rounded as
        ``torch.nn.functional.interpolate`` does it (a float32 scale, one fused multiply-add): its rounding
        shows in the scores of large images.
    """
    scale = (torch.tensor(float(cells)) / length).double()
    centres = torch.arange(length, dtype=torch.float64)[pixels] + 0.5
    position = (centres * scale - 0.5).float().clamp(min=0)
    left = position.long().clamp(max=cells - 1)
    right = (left + 1).clamp(max=cells - 1)
    return left, right, position - left


def _tent(span: Span) -> Tensor:
    """(pixels for which the span counts,) weights, 1 in the middle and near 0 at both ends."""
    length = span.high - span.low
    place = torch.arange(length) + 0.5
    return torch.minimum(place, length - place) / (length / 2)


def needed_taps(
    source: tuple[int, int], target: tuple[int, int], tile: Tile
) -> tuple[tuple[_Taps, _Taps], Tile]:
    """What resizing ``source`` to ``target`` pixels needs for a tile: taps into a tile of it, and that."""
    taps, ranges = [], []
    for axis in range(2):
        left, right, share = _taps(source[axis], target[axis], tile[axis])
        first = int(left[0])
        taps.append((left - first, right - first, share))
        ranges.append(slice(first, int(right[-1]) + 1))
    return (taps[0], taps[1]), (ranges[0], ranges[1])


def resampled(values: Tensor, taps: tuple[_Taps, _Taps]) -> Tensor:
    """(rows, Q, columns) along both axes."""
    stretched = _interpolate(values, taps[0])
    return _interpolate(stretched.transpose(0, 2), taps[1]).transpose(0, 2)


def _interpolate(values: Tensor, taps: _Taps) -> Tensor:
    """Interpolates along dimension 0 by (left, right, share of right)."""
    left, right, share = taps
    share = share.view(-1, *[1] * (values.dim() - 1)).to(values.device)
    return values[left.to(values.device)] * (1 - share) + values[right.to(values.device)] * share


def _add_taps(matrix: Tensor, taps: _Taps) -> None:
    """Adds the interpolation to a (pixels, cells) matrix."""
    left, right, share = taps
    pixel = torch.arange(len(left))
    matrix.index_put_((pixel, left), 1 - share, accumulate=True)
    matrix.index_put_((pixel, right), share, accumulate=True)
