"""Cutting an image into overlapping windows, and the padding that references apply to image or window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ovseg._lazy import F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Pad", "Span", "WindowGrid", "slide", "window_starts"]


@dataclass(frozen=True)
class Span:
    """Where a run of cells lies along one axis of the resized image, in pixels.

    Attributes:
        start: First pixel that the cells cover; negative where the window was padded.
        length: Pixels that the cells cover, padding included.
        low: First pixel for which the window counts.
        high: One past the last pixel for which it counts.
        taper: Whether its weight among overlapping windows falls off linearly from the middle to both ends,
            so that no edge shows; else all count alike.
    """

    start: int
    length: int
    low: int
    high: int
    taper: bool = False


@dataclass(frozen=True)
class Pad:
    """Zero padding of a window up to a multiple.

    Attributes:
        multiple: Pixels.
        side: ``corner``: at the right and bottom (MaskCLIP, CLIP-DINOiser). ``centre``: half on each side,
            the odd pixel last (ClearCLIP, ProxyCLIP).
        before_norm: Pad the image in [0, 1] (black) instead of the normalised one (mean colour).
            CLIP-DINOiser and LPOSS pad before.
        stretch: Read the scores of the padded window as if they covered the bare one (mmsegmentation pads
            inside its patch embedding and then resizes to the image).
    """

    multiple: int
    side: Literal["corner", "centre"] = "corner"
    before_norm: bool = False
    stretch: bool = False

    def before(self, length: int) -> int:
        """Pixels added before the first one."""
        return self.total(length) // 2 if self.side == "centre" else 0

    def total(self, length: int) -> int:
        """Pixels added in all."""
        return -length % self.multiple

    def __call__(self, image: Tensor) -> Tensor:
        """Pads (..., H, W)."""
        height, width = image.shape[-2:]
        top, left = self.before(height), self.before(width)
        bottom, right = self.total(height) - top, self.total(width) - left
        return F.pad(image, (left, right, top, bottom)) if top + left + bottom + right else image


def window_starts(size: int, crop: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along one side, as mmsegmentation's slide inference places them.

    The last window is moved inwards to end at the border; a side shorter than the window is one window.

    Args:
        size: Length of the side in pixels.
        crop: Length of a window in pixels.
        stride: Step between windows in pixels, 1 to ``crop``.

    Raises:
        ValueError: ``stride`` is not in 1..crop (pixels between windows would be lost).
    """
    if not 1 <= stride <= crop:
        raise ValueError(f"a window stride must lie between 1 and the window size {crop}, got {stride}")
    count = max(size - crop + stride - 1, 0) // stride + 1
    return tuple(max(min(i * stride, size - crop), 0) for i in range(count))


@dataclass(frozen=True)
class WindowGrid:
    """A product grid of windows of one size over an image.

    Attributes:
        size: (H, W) of the image in pixels.
        crop: (height, width) of every window in pixels.
        tops: First rows.
        lefts: First columns.
        pad: Padding of each window, or None.
        taper: See ``Span``.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    pad: Pad | None = None
    taper: bool = False

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def boxes(self) -> Iterator[tuple[int, int, int, int]]:
        """(top, left, bottom, right) of each window, row by row."""
        for top in self.tops:
            for left in self.lefts:
                yield top, left, top + self.crop[0], left + self.crop[1]

    def spans(self) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Row and column spans for a ``ScoreField`` layer whose cells cover the padded windows."""
        return self._axis_spans(self.tops, self.crop[0]), self._axis_spans(self.lefts, self.crop[1])

    def _axis_spans(self, starts: tuple[int, ...], crop: int) -> tuple[Span, ...]:
        pad = None if self.pad is None or self.pad.stretch else self.pad
        before, total = (pad.before(crop), pad.total(crop)) if pad else (0, 0)
        return tuple(Span(start - before, crop + total, start, start + crop, self.taper) for start in starts)


def slide(
    size: tuple[int, int],
    crop: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    pad: Pad | None = None,
    taper: bool = False,
) -> WindowGrid:
    """The windows over an image.

    Args:
        size: (H, W) of the image in pixels.
        crop: Window side(s) in pixels; None for the whole image as one window.
        stride: Step(s) in pixels; None for no overlap.
        pad: Padding of each window.
        taper: See ``Span``.

    Raises:
        ValueError: See ``window_starts``.
    """
    if crop is None:
        return WindowGrid(size, size, (0,), (0,), pad)
    crops = (crop, crop) if isinstance(crop, int) else crop
    strides = crops if stride is None else (stride, stride) if isinstance(stride, int) else stride
    tops, lefts = (window_starts(n, c, s) for n, c, s in zip(size, crops, strides))
    clipped = (min(crops[0], size[0]), min(crops[1], size[1]))
    return WindowGrid(size, clipped, tops, lefts, pad, taper)
