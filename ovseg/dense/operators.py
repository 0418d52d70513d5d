"""Affinities applied to features or scores after a tower has run.

None of them holds a dense patches x patches matrix: its rows are computed, used and dropped, or it is sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovseg._lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SparseGraph", "best", "pool", "propagate", "row_blocks"]

_BLOCK_ELEMENTS = 1 << 20  # of an affinity at once: 4 MB stay in the processor's cache
_BEST_ELEMENTS = 1 << 18  # copied and compared at once: 1 MB
_PRODUCT_ELEMENTS = 1 << 23  # of a product at once: memory of more than 32 MB is new each time
_SOLVE_ELEMENTS = 1 << 23  # of the scores solved for at once: the solver holds five such tensors of 32 MB


@dataclass(frozen=True)
class SparseGraph:
    """How N nodes listen to each other: an (N, N) matrix with few entries in a row, in compressed rows.

    Its product is an ``embedding_bag``, each node the weighted sum of a bag of nodes: on a CPU up to four
    times as fast as PyTorch's sparse matrices where rows are short, and values may be many columns wide.

    Attributes:
        starts: (N + 1,) where each row's entries begin, and the last one's end; of the integers of
            ``columns``.
        columns: (edges,) node at the other end.
        weights: (edges,)
    """

    starts: Tensor
    columns: Tensor
    weights: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """The product with (N, q)."""
        count = len(self.starts) - 1
        step = max(_PRODUCT_ELEMENTS // max(values.shape[1], 1), 1)
        if step >= count:
            return self._rows(0, count, values)
        product = values.new_empty(count, values.shape[1])
        for first in range(0, count, step):
            last = min(first + step, count)
            product[first:last] = self._rows(first, last, values)
        return product

    def _rows(self, first: int, last: int, values: Tensor) -> Tensor:
        begin, end = int(self.starts[first]), int(self.starts[last])
        starts = self.starts[first : last + 1] - begin
        edges, weights = self.columns[begin:end], self.weights[begin:end]
        return F.embedding_bag(
            edges, values, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
        )


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Ranges of the rows of a (rows, columns) matrix, each small enough to work on at once."""
    step = max(_BLOCK_ELEMENTS // columns, 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest value along the first dimension and its index, the first one of equals.

    ``scores.max(dim=0)`` finds the index by one comparison after the other. A max pooling over channels that
    lie side by side is vectorised and keeps the index in the same pass: four times faster on a CPU.

    Args:
        scores: (Q, ...) floats, at least one in the first dimension. Fastest where the next dimension has
            the longest stride, as in ``ScoreField.tile``; others are copied, a part at a time.

    Returns:
        Two tensors (...), of the values and int64.
    """
    if scores.device.type != "cpu" or scores.dim() != 3 or not scores.numel():
        return scores.max(dim=0)
    pixels = scores.transpose(0, 1)  # (rows, Q, columns)
    if pixels.is_contiguous():
        return _best_of_rows(pixels)
    step = max(_BEST_ELEMENTS // pixels[0].numel(), 1)
    values, indices = zip(*(_best_of_rows(part.contiguous()) for part in pixels.split(step)))
    return torch.cat(values), torch.cat(indices)


def _best_of_rows(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Of (n, Q, m), contiguous: n pictures of m channels, Q high and 1 wide, "channels last"."""
    pictures = scores.unsqueeze(2).permute(0, 3, 1, 2)
    value, index = F.max_pool2d(pictures, (scores.shape[1], 1), return_indices=True)
    return value[:, :, 0, 0], index[:, :, 0, 0]


def pool(features: Tensor, guide: Tensor, gamma: float | None) -> Tensor:
    """Each position takes the mean of all features, weighted by how alike the guide is there (CLIP-DINOiser).

    Args:
        features: (B, C, h, w) to be averaged.
        guide: (B, E, h, w); its cosine similarities are the weights.
        gamma: Similarities below it, and negative ones, count as zero. None or 0: all count as they are, as
            in the authors' code.

    Returns:
        (B, C, h, w).
    """
    unit = F.normalize(guide.flatten(2), dim=1)  # (B, E, N)
    tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
    batch, _, count = unit.shape
    pooled = torch.empty_like(features, memory_format=torch.contiguous_format)
    for rows in row_blocks(count, 2 * batch * count):  # blocks of half the size, as features lie beside them
        weights = unit[:, :, rows].transpose(1, 2) @ unit  # (B, n, N)
        if gamma:
            weights.masked_fill_(weights < max(gamma, 0.0), 0.0)
        mean = (weights @ tokens) / (weights.sum(dim=2, keepdim=True) + 1e-6)
        pooled.flatten(2)[:, :, rows] = mean.transpose(1, 2)
    return pooled


def propagate(
    graph: Callable[[Tensor], Tensor],
    scores: Tensor,
    alpha: float,
    iterations: int = 10,
    tolerance: float = 1e-6,
) -> Tensor:
    """Label propagation (Zhou et al., NIPS 2004): solves (I - alpha S) Z = scores by conjugate gradients.

    Args:
        graph: Multiplies (N, q) by the symmetric, normalised adjacency S, into a new tensor.
        scores: (N, Q); each column is solved on its own, as far as the iterations reach.
        alpha: Share of the neighbours, 0 to below 1.
        iterations: At most; published numbers depend on it, as 10 do not reach the solution.
        tolerance: A column is done when its residual is below this share of its norm.

    Returns:
        (N, Q), without gradient.
    """
    columns = max(_SOLVE_ELEMENTS // len(scores), 1)
    solved = torch.empty_like(scores)
    with torch.no_grad():
        for first in range(0, scores.shape[1], columns):
            part = slice(first, first + columns)
            solved[:, part] = _conjugate_gradients(graph, scores[:, part], alpha, iterations, tolerance)
    return solved


def _conjugate_gradients(
    graph: Callable[[Tensor], Tensor], scores: Tensor, alpha: float, iterations: int, tolerance: float
) -> Tensor:
    residual = scores.clone(memory_format=torch.contiguous_format)
    solution, direction = torch.zeros_like(residual), residual.clone()
    power = residual.norm(dim=0) ** 2
    enough = tolerance**2 * power
    parts = list(row_blocks(*residual.shape))  # while they are in the cache, all is done with some rows
    for left in range(iterations, 0, -1):
        open_ = power > enough
        if not open_.any():
            break
        image, curvature = graph(direction), torch.zeros_like(power)
        for rows in parts:
            torch.add(direction[rows], image[rows], alpha=-alpha, out=image[rows])
            curvature += (direction[rows] * image[rows]).sum(dim=0)
        # columns that are done stay as they are
        step = torch.where(open_, power / curvature, 0.0)
        before, power = power, torch.zeros_like(power)
        for rows in parts:
            solution[rows].addcmul_(direction[rows], step)
            residual[rows].addcmul_(image[rows], step, value=-1)
            power += residual[rows].square().sum(dim=0)
        momentum = torch.where(open_, power / before, 0.0)
        for rows in parts if left > 1 else ():
            torch.addcmul(residual[rows], direction[rows], momentum, out=direction[rows])
    return solution
