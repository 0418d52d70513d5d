"""Scores of words over an image, kept at the resolution of the patches.

Full-size score maps of Q words cost Q * H * W numbers: 5 GB for 150 words on a 4K picture. A ``ScoreField``
keeps what the towers computed and produces any rectangle of the full-size map on demand, with exactly the
values that upsampling every window, applying the activation, averaging the overlaps and resizing to the
output would give there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ovseg.dense.interpolation import Axis, Tile, interpolated, kept_axis, needed_taps, resampled
from ovseg.dense.operators import best
from ovseg.dense.windows import Span, WindowGrid

__all__ = ["BLOCK_WORDS", "Layer", "ScoreField"]

_BLOCK_ELEMENTS = 1 << 18  # scores computed at once: 1 MB stays in the processor's cache
_WINNERS_ELEMENTS = 1 << 20  # of words that are not left out
_WINNERS_ROWS, _WINNERS_COLUMNS = 96, 64
_FEW_WORDS = 32  # to leave some of them out would cost more than it saves
_COARSE = 16  # pixels to a cell at least; on a finer grid, comparing cells costs more than it saves
_RIVALS = 16  # with 150 words of random scores: leave less than half of those that a single one leaves
_RIVAL_ELEMENTS = 1 << 20  # compared with all rivals at once: 4 MB
BLOCK_WORDS = 2048
_BLOCK_COLUMNS = 128  # narrow blocks meet few cells, so that the product below stays small


@dataclass(frozen=True)
class Layer:
    """One product grid of windows.

    Attributes:
        scores: (ny, nx, Q, h, w), the windows' scores at patch resolution.
        rows: ny spans, where each row of windows lies.
        cols: nx spans.
        weight: Share of this layer in the mean over layers (CAT-Seg's global view is a second layer).
        size: (H, W) in pixels of a resized image of the layer's own, on which its spans lie. Its scores are
            activated there, and then resized to the field's. None: it is the field's.
    """

    scores: Tensor
    rows: tuple[Span, ...]
    cols: tuple[Span, ...]
    weight: float = 1.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class ScoreField:
    """Scores of Q words over an image.

    Overlapping windows are averaged with equal weight, or tapered (``Span``); layers by their weights.

    Attributes:
        layers: At least one; each must cover the whole image.
        size: (H, W) in pixels of the resized image, on which the spans lie.
        output_size: (H', W') in pixels of the result: the averaged scores are resized to it bilinearly.
        activation: Applied to upsampled windows before they are averaged: over each score (``sigmoid``), over
            words (``softmax``), or None. An activation on patches is applied by whoever makes the field; one
            on the output is a step of the decision.
        regions: (H', W') integers, the region of each output pixel or -1, where the method finds regions.
        masks: Draws masks on the image around prompts (``ovseg.inference.mask_refinement.PromptedMasks``),
            where the method has a network that can.
    """

    layers: tuple[Layer, ...]
    size: tuple[int, int]
    output_size: tuple[int, int]
    activation: Literal["sigmoid", "softmax"] | None = None
    regions: Tensor | None = None
    masks: Any | None = None
    _axes: tuple[_LayerAxes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a ScoreField needs at least one layer")
        if self.activation is None and any(layer.size not in (None, self.size) for layer in self.layers):
            raise ValueError("a layer of another size than the field's needs an activation at that size")
        total = sum(layer.weight for layer in self.layers)
        object.__setattr__(self, "_axes", tuple(self._layer_axes(layer, total) for layer in self.layers))

    @classmethod
    def from_windows(
        cls,
        scores: Tensor,
        grid: WindowGrid,
        output_size: tuple[int, int] | None = None,
        activation: Literal["sigmoid", "softmax"] | None = None,
    ) -> ScoreField:
        """A field of one layer.

        Args:
            scores: (number of windows, Q, h, w), in the order of ``grid.boxes()``.
            grid: The windows.
            output_size: (H', W') in pixels; by default the grid's image size.
            activation: See the class.
        """
        mosaic = scores.unflatten(0, (len(grid.tops), len(grid.lefts)))
        return cls((Layer(mosaic, *grid.spans()),), grid.size, output_size or grid.size, activation)

    def scaled(self, factor: float) -> ScoreField:
        """All scores times a factor. It needs a field without an activation.

        Raises:
            ValueError: There is an activation, which does not commute with it.
        """
        if self.activation is not None:
            raise ValueError("scores under an activation cannot be scaled before it")
        layers = tuple(replace(layer, scores=layer.scores.float() * factor) for layer in self.layers)
        return replace(self, layers=layers)

    @property
    def num_words(self) -> int:
        """Q."""
        return self.layers[0].scores.shape[2]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Rectangles (rows, columns) of the output that partition it.

        Sized so that the scores of ``BLOCK_WORDS`` words in one of them fit a processor's cache.
        """
        height, width = self.output_size
        cols = min(width, _BLOCK_COLUMNS)
        for rows in _split(slice(0, height), _BLOCK_ELEMENTS // (min(self.num_words, BLOCK_WORDS) * cols)):
            for part in _split(slice(0, width), cols):
                yield rows, part

    def winners(self, numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The greatest score at each pixel of the output, and the word that has it; the first one of equals.

        Without an activation, words that cannot win anywhere in a block are not upsampled.

        Args:
            numbers: (Q,) integers that stand for the words in the result; by default 0, 1, 2 ... as int64.

        Returns:
            (H', W') float32, and (H', W') as ``numbers``.
        """
        device = self.layers[0].scores.device
        numbers = torch.arange(self.num_words, device=device) if numbers is None else numbers
        values = torch.empty(self.output_size, device=device)
        words = torch.empty(self.output_size, dtype=numbers.dtype, device=device)
        for rows, cols, some in self._contests():
            value, index = best(self.tile(rows, cols, some))
            values[rows, cols] = value
            names = numbers if some is None else numbers[some]
            words[rows, cols] = names.index_select(0, index.flatten()).view(index.shape)
        return values, words

    def _contests(self) -> Iterator[tuple[slice, slice, Tensor | None]]:
        """Blocks with the numbers of the words that may win in them; None: all."""
        height, width = self.output_size
        cells = sum(axes.mosaic.shape[0] * axes.mosaic.shape[2] for axes in self._axes)
        dense, few = cells * _COARSE > height * width, self.num_words < _FEW_WORDS
        plain = dense or few or self.activation is not None or self.layers[0].scores.device.type != "cpu"
        columns = list(_split(slice(0, width), _WINNERS_COLUMNS))
        top = 0
        while top < height and not plain:
            rows = slice(top, min(top + _WINNERS_ROWS, height))
            contenders = list(self._contenders(rows, columns))
            plain = sum(map(len, contenders)) > len(columns) * self.num_words / 2
            for cols, some in zip(columns, contenders):
                for part in _split(rows, _WINNERS_ELEMENTS // (len(some) * _WINNERS_COLUMNS)):
                    yield part, cols, some
            top = rows.stop
        for rows, cols in self.blocks():
            if rows.stop > top:
                yield slice(max(rows.start, top), rows.stop), cols, None

    def _contenders(self, rows: slice, columns: Sequence[slice]) -> Iterator[Tensor]:
        """For each of some blocks side by side, the numbers of the words that may win in it."""
        cells = sum(len(axes.cells(rows, columns[:1])) for axes in self._axes)  # of one block
        most = max(_RIVAL_ELEMENTS // (_RIVALS * cells * self.num_words), 1)
        for first in range(0, len(columns), most):
            some = columns[first : first + most]
            around = torch.cat([axes.cells(rows, some) for axes in self._axes])
            yield from (words.nonzero()[:, 0] for words in _unbeaten(around))

    def tile(self, rows: slice, cols: slice, words: slice | Tensor | None = None) -> Tensor:
        """The full-size scores in a rectangle.

        Args:
            rows: Output rows.
            cols: Output columns.
            words: Range of words, or their numbers; all by default.

        Returns:
            (Q, number of rows, number of columns) float32; a view whose fastest dimension is the last.
        """
        words = slice(0, self.num_words) if words is None else words
        if self.activation is None:
            return _sum(axes.tile(rows, cols, words) for axes in self._axes).transpose(0, 1)
        needed = slice(0, self.num_words) if self.activation == "softmax" else words
        taps, canvas_tile = needed_taps(self.size, self.output_size, (rows, cols))
        canvas = _sum(
            axes.activated_tile(canvas_tile, self.size, needed, self.activation) for axes in self._axes
        )
        return resampled(canvas[:, words] if self.activation == "softmax" else canvas, taps).transpose(0, 1)

    def full(self) -> Tensor:
        """The whole output (Q, H', W'). For small pictures and tests: it needs all the memory at once."""
        return self.tile(slice(0, self.output_size[0]), slice(0, self.output_size[1]))

    def _layer_axes(self, layer: Layer, total: float) -> _LayerAxes:
        scores = layer.scores.float()
        ny, nx, _, h, w = scores.shape
        resize = self.activation is None
        size = layer.size or self.size
        mosaic = scores.permute(0, 3, 2, 1, 4).reshape(ny * h, self.num_words, nx * w)
        return _LayerAxes(
            mosaic,
            kept_axis(tuple(layer.rows), h, size[0], self.output_size[0] if resize else None, scores.device),
            kept_axis(tuple(layer.cols), w, size[1], self.output_size[1] if resize else None, scores.device),
            layer.weight / total,
            size,
        )


@dataclass(frozen=True)
class _LayerAxes:
    """A layer as one mosaic of the cells of all its windows, and the interpolation along both axes."""

    mosaic: Tensor  # (ny * h, Q, nx * w)
    rows: Axis
    cols: Axis
    share: float
    size: tuple[int, int]

    def cells(self, rows: slice, columns: Sequence[slice]) -> Tensor:
        """(cells of a tile, tiles, Q) scores, with this layer's share, that tiles are interpolated from.

        The tiles lie side by side. Those that need fewer cells than others have some twice.
        """
        ranges = [self.cols.needed(cols) for cols in columns]
        first, last = (torch.tensor([getattr(r, end) for r in ranges]) for end in ("start", "stop"))
        index = torch.minimum(first[:, None] + torch.arange(int((last - first).max())), last[:, None] - 1)
        scores = self.mosaic[self.rows.needed(rows)].transpose(1, 2).contiguous()  # (a, nx * w, Q)
        scores = scores.index_select(1, index.T.flatten()) * self.share
        return scores.view(-1, len(columns), scores.shape[2])

    def tile(self, rows: slice, cols: slice, words: slice | Tensor) -> Tensor:
        """(rows, Q, columns)."""
        row_weights, row_cells = self.rows.band(rows)
        col_weights, col_cells = self.cols.band(cols)
        if self.share != 1:
            row_weights = row_weights * self.share
        return interpolated(self.mosaic[row_cells, words, col_cells], row_weights, col_weights)

    def activated_tile(
        self, tile: Tile, size: tuple[int, int], words: slice | Tensor, activation: str
    ) -> Tensor:
        """As ``tile``, on an image of some size, window by window: an activation does not commute with
        averaging or resizing.
        """
        if size != self.size:
            taps, tile = needed_taps(self.size, size, tile)
            return resampled(self.activated_tile(tile, self.size, words, activation), taps)
        rows, cols = tile
        total: Any = 0
        for row_weights, row_cells, row_share in self.rows.windows(rows):
            for col_weights, col_cells, col_share in self.cols.windows(cols):
                scores = interpolated(self.mosaic[row_cells, words, col_cells], row_weights, col_weights)
                active = scores.sigmoid() if activation == "sigmoid" else scores.softmax(dim=1)
                total = total + active * (row_share[:, None, None] * col_share * self.share)
        return total


def _split(lines: slice, step: int) -> Iterator[slice]:
    for first in range(lines.start, lines.stop, max(step, 1)):
        yield slice(first, min(first + max(step, 1), lines.stop))


def _unbeaten(cells: Tensor) -> Tensor:
    """(tiles, Q) whether a word may win between the cells (n, tiles, Q) of a tile.

    Not those that one of the words of greatest means beats everywhere: no weight of an interpolation is
    negative, so such a word is beaten at every pixel. Whatever is not a number stays.
    """
    cells = cells.detach()
    rivals = cells.sum(dim=0).topk(min(_RIVALS, cells.shape[2]), dim=1).indices  # (tiles, rivals)
    theirs = cells.gather(2, rivals.expand(len(cells), -1, -1))
    lead = (cells[:, :, None] - theirs[..., None]).amax(dim=0)  # (tiles, rivals, Q)
    return ~(lead.amin(dim=1) < 0)


def _sum(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total
