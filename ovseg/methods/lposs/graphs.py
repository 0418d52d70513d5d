"""The two graphs of LPOSS: patches that look alike and lie near, and pixels of like colour that lie near."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ovseg.dense.operators import SparseGraph, row_blocks
from ovseg.towers.linear import linear

__all__ = ["lab", "patch_graph", "pixel_graph"]

_NEGLIGIBLE = 1e-9  # a normalised edge below it changes no score by more than float32's rounding
_BAND = 1 << 21  # edges built at once


def patch_graph(
    features: Tensor, centres: Tensor, neighbours: int, gamma: float, sigma: float, power: float
) -> SparseGraph:
    """Joins each patch to those with the most similar features, more strongly if they lie near (section 3.2).

    The result is the normalised adjacency D^-1/2 W D^-1/2 without loops, as is that of ``pixel_graph``.

    Args:
        features: (N, C) of unit length.
        centres: (N, 2) of the patches in pixels.
        neighbours: Edges from each patch, itself among them.
        gamma: Exponent of the similarity; negative similarities count as zero.
        sigma: Decay with the distance, per pixel to the ``power``.
        power: Exponent of the distance.
    """
    count = len(features)
    neighbours = min(neighbours, count)
    values, columns = [], []
    for rows in row_blocks(count, count):
        similarity, near = linear(features[rows], features).topk(neighbours, dim=1, sorted=False)
        distance = (centres[rows, None] - centres[near]).norm(dim=2)
        values.append(similarity.clamp(min=0) ** gamma * torch.exp(-sigma * distance**power))
        columns.append(near.int())
    starts = np.arange(count + 1, dtype=np.int32) * neighbours
    data, indices = (torch.cat(parts).flatten().cpu().numpy() for parts in (values, columns))
    directed = sparse.csr_matrix((data, indices, starts), shape=(count, count))
    both = (directed + directed.T).tocsr()
    ends = np.repeat(np.arange(count), np.diff(both.indptr))
    both.data[both.indices == ends] = 0
    scale = _inverse_root(np.asarray(both.sum(axis=1, dtype=np.float64)).ravel()).astype(data.dtype)
    both.data *= scale[both.indices] * scale[ends]
    return _graph(both.indptr, both.indices, both.data, features.device)


def pixel_graph(image01: Tensor, window: int, tau: float) -> SparseGraph:
    """Joins each pixel to those in a square around it, more strongly the more alike their colours (LPOSS+).

    Args:
        image01: (3, H, W) RGB in [0, 1].
        window: Side of the square in pixels; an even one reaches as far as the odd one above it.
        tau: Decay with the distance in CIE Lab, scaled to about 1.
    """
    reach = window // 2
    colours = (lab(image01.float()) / image01.new_tensor([100, 128, 128])[:, None, None]).cpu().numpy()
    _, height, width = colours.shape
    step = max(_BAND // (width * (2 * reach + 1) ** 2), 1)
    bands = [(top, min(top + step, height)) for top in range(0, height, step)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets the others run
        degrees = pool.map(lambda band: _weights(colours, band, reach, tau).sum(axis=0), bands)
        scale = _inverse_root(np.concatenate(list(degrees)).astype(np.float64)).astype(np.float32)
        most = (height * width + 1) * ((2 * reach + 1) ** 2 - 1)  # edges; empty pages cost nothing
        columns, values = np.empty(most, np.int32), np.empty(most, np.float32)
        counts, filled, step = [np.zeros(1, np.int64)], 0, torch.get_num_threads()
        for first in range(0, len(bands), step):  # no more of them than are worked on wait in memory
            some = bands[first : first + step]
            for count, ends, kept in pool.map(lambda band: _edges(colours, band, reach, tau, scale), some):
                columns[filled : filled + len(ends)], values[filled : filled + len(ends)] = ends, kept
                filled += len(ends)
                counts.append(count)
    starts = np.cumsum(np.concatenate(counts), dtype=np.int64)
    if filled < 2**31:
        starts = starts.astype(np.int32)
    columns = columns[:filled].astype(starts.dtype, copy=False)
    return _graph(starts, columns, values[:filled], image01.device)


def _graph(starts: np.ndarray, columns: np.ndarray, values: np.ndarray, device: torch.device) -> SparseGraph:
    return SparseGraph(*(torch.from_numpy(part).to(device) for part in (starts, columns, values)))


def _weights(colours: np.ndarray, band: tuple[int, int], reach: int, tau: float) -> np.ndarray:
    """Weights (edges, rows, W) of the pixels of a band of rows to their neighbours, 0 over the border."""
    (top, bottom), side, width = band, 2 * reach + 1, colours.shape[2]
    padded = np.full((3, bottom - top + 2 * reach, width + 2 * reach), np.inf, np.float32)
    first, last = max(top - reach, 0), min(bottom + reach, colours.shape[1])
    padded[:, first - top + reach : last - top + reach, reach : reach + width] = colours[:, first:last]
    own = padded[:, reach : reach + bottom - top, reach : reach + width]
    weights = np.empty((side * side, bottom - top, width), np.float32)
    for edge in range(side * side):
        dy, dx = divmod(edge, side)
        other = padded[:, dy : dy + bottom - top, dx : dx + width]
        distance = sum(np.square(a - b) for a, b in zip(own, other))
        np.exp(np.sqrt(distance) * np.float32(-1 / tau), out=weights[edge])
    weights[side * side // 2] = 0
    return weights


def _edges(
    colours: np.ndarray, band: tuple[int, int], reach: int, tau: float, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised edges of a band without the negligible ones: count per pixel, other ends, values."""
    weights = _weights(colours, band, reach, tau)
    width = scale.shape[1]
    offsets = np.add.outer(np.arange(-reach, reach + 1) * width, np.arange(-reach, reach + 1)).ravel()
    ends = np.arange(band[0] * width, band[1] * width, dtype=np.int32)[:, None] + offsets.astype(np.int32)
    weights = weights.reshape(len(offsets), -1).T * scale[band[0] : band[1]].reshape(-1, 1)
    weights *= scale.ravel()[ends.clip(0, scale.size - 1)]
    kept = weights > _NEGLIGIBLE
    return kept.sum(axis=1), ends[kept], weights[kept]


def _inverse_root(degree: np.ndarray) -> np.ndarray:
    """1 / sqrt(degree), and 1 for nodes without edges."""
    return 1 / np.sqrt(np.where(degree == 0, 1, degree))


def lab(image01: Tensor) -> Tensor:
    """CIE L*a*b* (3, H, W) under D65 of sRGB (3, H, W) in [0, 1]: L in 0..100, a and b in about -128..128."""
    linear = torch.where(image01 > 0.04045, ((image01 + 0.055) / 1.055) ** 2.4, image01 / 12.92)
    to_xyz = linear.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    white = linear.new_tensor([0.95047, 1.0, 1.08883])[:, None, None]
    xyz = torch.einsum("ij,jhw->ihw", to_xyz, linear) / white
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
