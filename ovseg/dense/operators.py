"""Affinities applied to features or scores after a tower has run.

None of them holds a dense patches x patches matrix: its rows are computed, used and dropped, or it is sparse.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovseg._lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SparseGraph", "best", "pool", "propagate", "row_blocks"]

_BLOCK_ELEMENTS = 1 << 20  # of an affinity at once: 4 MB stay in the processor's cache
_BEST_ELEMENTS = 1 << 18  # compared at once: twice 1 MB
_SOLVE_ELEMENTS = 1 << 23  # of the scores solved for at once: the solver holds five such tensors of 32 MB


@dataclass(frozen=True)
class SparseGraph:
    """How N nodes listen to each other: an (N, N) matrix with few entries in a row.

    Attributes:
        matrix: Sparse, in compressed rows.
    """

    matrix: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """The product with (N, q)."""
        return self.matrix @ values

    @classmethod
    def of(cls, starts: Tensor, columns: Tensor, values: Tensor) -> SparseGraph:
        """From the arrays of compressed rows, (N + 1,) and twice (edges,)."""
        size = (len(starts) - 1,) * 2
        with warnings.catch_warnings():  # PyTorch calls compressed rows a beta
            warnings.simplefilter("ignore", UserWarning)
            return cls(torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False))


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Ranges of the rows of a (rows, columns) matrix, each small enough to work on at once."""
    step = max(_BLOCK_ELEMENTS // columns, 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest value along the first dimension and its index, the first one of equals.

    ``scores.max(dim=0)`` finds the index by one comparison after the other. Two maxima, of the values and of
    the indices that reach them, are vectorised: three to six times faster on a CPU.

    Args:
        scores: (Q, ...) floats, at least one in the first dimension and fewer than 2^24.

    Returns:
        Two tensors (...), of the values and int64.
    """
    if scores.device.type != "cpu" or scores.dtype != torch.float32:  # indices are counted in floats below
        return scores.max(dim=0)
    if scores.numel() > _BEST_ELEMENTS and scores.dim() > 1:
        step = max(_BEST_ELEMENTS * scores.shape[1] // scores.numel(), 1)
        if step < scores.shape[1]:
            values, indices = zip(*(best(part) for part in scores.split(step, dim=1)))
            return torch.cat(values), torch.cat(indices)
    count, value, plain = len(scores), scores.amax(dim=0), scores.detach()
    countdown = torch.arange(count, 0, -1, dtype=scores.dtype).view(-1, *[1] * value.dim())
    # ``out`` keeps the comparison in floats: a tensor of booleans would have to be converted again
    reached = torch.eq(plain, value.detach(), out=torch.empty_like(plain)).mul_(countdown)
    index = count - reached.amax(dim=0).long()
    return value, index.clamp_(max=count - 1)  # nothing equals a NaN


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
        graph: Multiplies (N, q) by the symmetric, normalised adjacency S.
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
    for left in range(iterations, 0, -1):
        open_ = power > enough
        if not open_.any():
            break
        image = torch.add(direction, graph(direction), alpha=-alpha)
        # columns that are done stay as they are
        step = torch.where(open_, power / (direction * image).sum(dim=0), 0.0)
        solution.addcmul_(direction, step)
        if left == 1:
            break
        residual.addcmul_(image, step, value=-1)
        before, power = power, residual.norm(dim=0) ** 2
        direction = torch.addcmul(residual, direction, torch.where(open_, power / before, 0.0))
    return solution
