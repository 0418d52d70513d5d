"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020): neighbours of like colour share scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.operators import SparseGraph

__all__ = ["Refined", "Source", "pamr", "pamr_affinity"]

_WORDS = 80  # refined at once: an edge is read for all of them
_LANES = 16  # their number is filled up to a multiple: sums of other widths take a third longer
_FEW_WORDS = 16  # in large blocks
_ELEMENTS = 1 << 25  # scores refined at once: 128 MB
_SMALL = 1 << 17  # pixels of a picture that is one block
_BLOCK_PIXELS = 4096  # about so many
_BORDER_ELEMENTS = 1 << 27  # kept of the border at most: 512 MB
_OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def _neighbours(x: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The neighbours of every pixel of (N, C, H, W), borders replicated, as views of padded copies."""
    height, width = x.shape[-2:]
    for dilation in dilations:
        padded = F.pad(x, (dilation,) * 4, mode="replicate")
        for dy, dx in _OFFSETS:
            top, left = dilation * (1 + dy), dilation * (1 + dx)
            yield padded[..., top : top + height, left : left + width]


def pamr_affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """How much each pixel listens to its neighbours.

    Args:
        image: (3, H, W) in the values that the network sees.
        dilations: Distances of the neighbours in pixels; 8 neighbours each.

    Returns:
        (8 * number of dilations, H, W), non-negative, summing to 1 over the neighbours.
    """
    image = image[None]
    near = list(_neighbours(image, dilations))
    # the deviation is taken over each window of nine, all dilations pooled: the centre counts once for each
    centres = len(dilations)
    count = len(near) + centres
    mean = sum(near, start=centres * image) / count
    square = centres * (image - mean).square_()
    for neighbour in near:
        square += (neighbour - mean).square_()
    spread = square.div_(count - 1).sqrt_().mul_(0.1).add_(1e-8)
    weights = image.new_empty(len(near), *image.shape[-2:])
    for weight, neighbour in zip(weights, near):
        torch.mean((image - neighbour).abs_().div_(spread)[0], dim=0, out=weight)
    return weights.neg_().softmax(dim=0)


class Source(Protocol):
    """Full-size scores on demand, not to be changed by who asks for them. Slices may have steps."""

    @property
    def output_size(self) -> tuple[int, int]: ...

    @property
    def num_words(self) -> int: ...

    def tile(self, rows: slice, cols: slice, words: slice) -> Tensor: ...


class Refined:
    """Scores of a source, refined, a block of pixels at a time.

    Where all dilations are multiples of a step, a pixel listens to pixels whole steps away and, at the
    border, to pixels of the border. Pixels whose row and whose column leave the same rest, divided by the
    step, are a phase: it depends on itself and on the border only. So the phases that hold the border come
    first, and what it was in each round is kept. A phase stays in the processor's cache for all rounds. A
    small picture is one block.

    Args:
        source: The scores.
        affinity: From ``pamr_affinity``, at the source's output size.
        dilations: Those of the affinity.
        iterations: Rounds.
        strided: Whether the source gives every n-th row and column at no extra cost. If not, the whole
            picture is one block.
    """

    def __init__(
        self,
        source: Source,
        affinity: Tensor,
        dilations: Sequence[int],
        iterations: int,
        strided: bool = True,
    ) -> None:
        self.source, self.output_size, self.num_words = source, source.output_size, source.num_words
        self._affinity, self._dilations, self._iterations = affinity, tuple(dilations), iterations
        self._on_cpu = affinity.device.type == "cpu"
        height, width = self.output_size
        border = 2 * (height + width) * iterations * self.num_words
        strided = strided and self._on_cpu and border <= _BORDER_ELEMENTS
        self._step = step = math.gcd(*dilations) if strided else 1
        together = 1, max(_BLOCK_PIXELS * step**2 // (height * width), 1)
        if height * width <= _SMALL:
            together = step, step
        self._rows, self._cols = _groups(height, step, together[0]), _groups(width, step, together[1])
        if self._on_cpu:
            self._weights = affinity.permute(1, 2, 0).contiguous()  # all that a pixel needs lies together
        self._borders: dict[tuple[int, int], _Border] = {}
        self._block: tuple[_Lines, _Lines] | None = None  # the last one
        self._solved: dict[tuple[int, int], Tensor] = {}  # its scores by words

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the phases, in an order in which nothing is computed twice."""
        for down in self._rows:
            for across in self._cols:
                for rows in down.slices:
                    for cols in across.slices:
                        yield rows, cols

    def tile(self, rows: slice, cols: slice, words: slice) -> Tensor:
        """Refined scores of one of the blocks, or of any other rectangle, for which all blocks are computed.

        Args:
            rows: Output rows.
            cols: Output columns.
            words: Range of words.

        Returns:
            (Q, number of rows, number of columns).
        """
        if not self._on_cpu:
            everything = slice(0, self.output_size[0]), slice(0, self.output_size[1])
            scores = self.source.tile(*everything, words)
            return _by_shifts(scores, self._affinity, self._dilations, self._iterations)[:, rows, cols]
        for down in self._rows:
            for across in self._cols:
                if rows in down.slices and cols in across.slices:
                    solved = self._solve(down, across, words)
                    return solved[down.place(rows), :, across.place(cols)].transpose(0, 1)
        height, width = self.output_size
        full = self._weights.new_empty(height, words.stop - words.start, width).transpose(0, 1)
        for block in self.blocks():
            full[:, block[0], block[1]] = self.tile(*block, words)
        return full[:, rows, cols]

    def _solve(self, down: _Lines, across: _Lines, words: slice) -> Tensor:
        """(rows, Q, columns) refined scores of a block, kept until another one is asked for."""
        key = (words.start, words.stop)
        if self._block == (down, across) and key in self._solved:
            return self._solved[key]
        if key not in self._borders:
            alone = len(self._rows) == len(self._cols) == 1
            rounds = 0 if alone else self._iterations
            self._borders[key] = _Border(self.output_size, rounds, words.stop - words.start)
        border = self._borders[key]
        for needed in ((self._rows[0], across), (down, self._cols[0])):
            if needed != (down, across) and needed not in border.known:
                self._solve(*needed, words)
        if self._block != (down, across):
            self._block, self._solved = (down, across), {}
        self._solved[key] = self._rounds(down, across, words, border)
        border.known.add((down, across))
        return self._solved[key]

    def _rounds(self, down: _Lines, across: _Lines, words: slice, border: _Border) -> Tensor:
        count, pixels = words.stop - words.start, len(down.numbers) * len(across.numbers)
        tiles = [
            (down.place(rows), across.place(cols), self.source.tile(rows, cols, words))
            for rows in down.slices
            for cols in across.slices
        ]
        weights = self._weights[down.numbers[:, None], across.numbers]
        edges = (_kept_edges if pixels <= _SMALL else _edges)(down.places, across.places, self._dilations)
        graph = SparseGraph(*edges, weights.flatten())
        refined = weights.new_empty(len(down.numbers), count, len(across.numbers))
        at_once = min(_WORDS, max(_ELEMENTS // pixels, _FEW_WORDS))
        for first in range(0, count, at_once):
            some = slice(first, min(first + at_once, count))
            width = -(-(some.stop - first) // _LANES) * _LANES
            table = weights.new_empty(len(down.around), len(across.around), width)
            table[:, :, some.stop - first :] = 0
            own = table[down.places.inside, across.places.inside, : some.stop - first]
            for rows, cols, tile in tiles:
                own[rows, cols] = tile[some].permute(1, 2, 0)
            exchange = border.exchange(down, across, some)
            table = table.flatten(0, 1)
            for turn in range(self._iterations):
                exchange(turn, table)
                table = graph(table)
            table = table.view(len(down.around), len(across.around), width)
            own = table[down.places.inside, across.places.inside, : some.stop - first]
            refined[:, some] = own.transpose(1, 2)
        return refined


@dataclass(frozen=True)
class _Places:
    """How the rows, or columns, of a block lie in its table: one phase after the other.

    Attributes:
        lengths: Number of lines of each phase.
        step: How many lines of the picture lie between two of a phase.
        inner: Whether neither the first nor the last line of the picture is among them; then these two are
            put around them.
        last: Place of the picture's last line; the first one's is 0.
    """

    lengths: tuple[int, ...]
    step: int
    inner: bool
    last: int

    def __len__(self) -> int:
        return sum(self.lengths) + 2 * self.inner

    @property
    def inside(self) -> slice:
        """Of all places those of the block's own lines."""
        return slice(1, -1) if self.inner else slice(None)

    def at(self, distance: int) -> Tensor:
        """(n,) places of the lines at a distance from the own ones, within the picture."""
        parts, first = [], int(self.inner)
        for length in self.lengths:
            there = torch.arange(length) + distance // self.step
            parts.append(torch.where(there < 0, 0, torch.where(there < length, there + first, self.last)))
            first += length
        return torch.cat(parts)


class _Lines:
    """Rows, or columns, of a block: those of some phases.

    Args:
        phases: Rests that they leave. Those of the first line and of the last one come together.
        size: Lines of the picture.
        step: What they are divided by.

    Attributes:
        slices: Of the picture, one for each phase.
        numbers: (n,) which lines they are.
        around: Those of the block's table.
        places: Where they lie in it.
    """

    def __init__(self, phases: Sequence[int], size: int, step: int) -> None:
        self.slices = [slice(phase, size, step) for phase in phases]
        parts = [torch.arange(phase, size, step) for phase in phases]
        self.numbers, inner = torch.cat(parts), 0 not in phases
        ends = torch.tensor([0, size - 1])
        self.around = torch.cat([ends[:1], self.numbers, ends[1:]]) if inner else self.numbers
        last = int((self.around == size - 1).nonzero()[-1])
        self.places = _Places(tuple(map(len, parts)), step, inner, last)

    def place(self, lines: slice) -> slice:
        """Where among ``numbers`` a phase lies."""
        phase, lengths = self.slices.index(lines), self.places.lengths
        first = sum(lengths[:phase])
        return slice(first, first + lengths[phase])


def _edges(down: _Places, across: _Places, dilations: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of a block: where the edges of each place in its table begin, and the places at their other ends.

    Places around the block have none.
    """
    shifts = [(d * dy, d * dx) for d in dilations for dy, dx in _OFFSETS]
    rows = torch.stack([down.at(dy) for dy, _ in shifts], dim=1)
    cols = torch.stack([across.at(dx) for _, dx in shifts], dim=1)
    ends = rows[:, None] * len(across) + cols  # (rows, columns, edges)
    counts = torch.zeros(len(down), len(across), dtype=torch.int64)
    counts[down.inside, across.inside] = len(shifts)
    starts = F.pad(counts.flatten().cumsum(0), (1, 0))
    kind = torch.int32 if ends.numel() < 2**31 else torch.int64
    return starts.to(kind), ends.to(kind).flatten()


_kept_edges = lru_cache(maxsize=4)(_edges)  # blocks of one shape have the same, as have pictures of one size


def _groups(size: int, step: int, several: int) -> list[_Lines]:
    """All lines: the phases of the first and of the last line together, of others ``several`` at a time.

    If all may be together, they are.
    """
    phases = range(min(step, size))
    ends = list(phases) if several >= step else sorted({0, (size - 1) % step})
    inner = [phase for phase in phases if phase not in ends]
    chunks = [inner[i : i + several] for i in range(0, len(inner), several)]
    return [_Lines(some, size, step) for some in (ends, *chunks)]


class _Border:
    """Scores of the border of a picture before each round, as far as they are known.

    Args:
        size: (H, W) in pixels.
        rounds: How many are kept; 0 where one block is the whole picture.
        words: How many.

    Attributes:
        known: The blocks that have been solved.
    """

    def __init__(self, size: tuple[int, int], rounds: int, words: int) -> None:
        self.known: set[tuple[_Lines, _Lines]] = set()
        self._size = size
        self._scores = torch.empty(rounds, 2 * sum(size), words)

    def exchange(self, down: _Lines, across: _Lines, words: slice) -> Callable[[int, Tensor], None]:
        """What a block does before a round: its pixels of the border are kept, those around it are set.

        Args:
            down: Its rows.
            across: Its columns.
            words: Range of words.

        Returns:
            A function of the round's number and the block's table (places, q or more).
        """
        if not len(self._scores):
            return lambda turn, table: None
        (height, width), row, col = self._size, down.around[:, None], across.around[None]
        kept = torch.where(col == width - 1, 2 * width + height + row, -1)
        for there, number in ((col == 0, 2 * width + row), (row == height - 1, width + col), (row == 0, col)):
            kept = torch.where(there, number, kept)
        own = torch.zeros_like(kept, dtype=torch.bool)
        own[down.places.inside, across.places.inside] = True
        kept, own = kept.flatten(), own.flatten()
        mine, others = (((kept >= 0) & side).nonzero()[:, 0] for side in (own, ~own))
        mine_kept, from_others = kept[mine], self._scores[:, kept[others], words]
        count = words.stop - words.start

        def before(turn: int, table: Tensor) -> None:
            if len(others):
                table[:, :count].index_copy_(0, others, from_others[turn])
            if len(mine):
                self._scores[turn, mine_kept, words] = table[mine, :count]

        return before


def pamr(scores: Tensor, affinity: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """Refines score maps; each channel on its own.

    Args:
        scores: (Q, H, W).
        affinity: From ``pamr_affinity`` with the same dilations.
        dilations: Distances of the neighbours in pixels.
        iterations: Rounds.

    Returns:
        (Q, H, W).
    """
    refined = Refined(_Whole(scores), affinity, dilations, iterations)
    return refined.tile(slice(0, scores.shape[1]), slice(0, scores.shape[2]), slice(0, len(scores)))


@dataclass(frozen=True)
class _Whole:
    """Scores (Q, H, W) as a source."""

    scores: Tensor

    @property
    def output_size(self) -> tuple[int, int]:
        return self.scores.shape[1], self.scores.shape[2]

    @property
    def num_words(self) -> int:
        return len(self.scores)

    def tile(self, rows: slice, cols: slice, words: slice) -> Tensor:
        return self.scores[words, rows, cols]


def _by_shifts(scores: Tensor, affinity: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """As ``pamr``, on devices that may lack sparse matrices."""
    scores = scores[None]
    for _ in range(iterations):
        refined = torch.zeros_like(scores)
        for weight, neighbour in zip(affinity, _neighbours(scores, dilations)):
            refined.addcmul_(neighbour, weight)
        scores = refined
    return scores[0]
