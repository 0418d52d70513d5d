"""Clusters of patches that attend alike, and the regions of pixels that they stand for (CLIPtrase)."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.towers.linear import linear

__all__ = ["cluster_kinship", "cluster_patches", "gram", "regions_of_clusters"]

_ZOOM = 4  # cluster maps are smoothed at this multiple of the patch grid
_MEDIAN = 2 * _ZOOM - 1
_STRIPS, _NARROW = 3, 64  # narrower ones cost more than they save
_SORTED = 4096  # medians found at once: 800 kB


def cluster_patches(affinity: Tensor, eps: float, min_samples: int) -> Tensor:
    """DBSCAN (Ester et al., KDD 1996) over the rows of an affinity.

    Clusters are numbered by their first core patch, as by scikit-learn. A patch that is no core belongs to
    the first of the clusters whose cores it neighbours.

    Args:
        affinity: (N, N); patches belong together where their whole rows are alike.
        eps: Largest Euclidean distance of two rows that are neighbours. It grows with sqrt(N).
        min_samples: Neighbours, itself included, that make a patch the core of a cluster.

    Returns:
        (N,) int64 clusters from 0 on, -1 for patches of none.
    """
    products = gram(affinity.double())
    length = products.diagonal().clone()
    squared = products.mul_(-2).add_(length[:, None]).add_(length)  # 0 for a row and itself
    near = (squared <= eps**2).cpu().numpy()
    cores = np.flatnonzero(near.sum(axis=1) >= min_samples)
    _, joined = connected_components(csr_array(near[np.ix_(cores, cores)]), directed=False)
    _, first, component = np.unique(joined, return_index=True, return_inverse=True)
    number = first.argsort().argsort()[component]
    clusters = np.where(near[:, cores], number, len(cores)).min(axis=1, initial=len(cores))
    return torch.from_numpy(np.where(clusters < len(cores), clusters, -1)).long()


def gram(rows: Tensor) -> Tensor:
    """Products of all pairs of rows (N, C) as (N, N): nearly half of them are mirrored, not computed."""
    count = len(rows)
    products = rows.new_empty(count, count)
    step = max(-(-count // _STRIPS), _NARROW)
    for first in range(0, count, step):
        last = min(first + step, count)
        products[first:last, first:] = linear(rows[first:last], rows[first:])
        products[last:, first:last] = products[first:last, last:].T
    return products


def regions_of_clusters(
    affinity: Tensor, clusters: Tensor, grid: tuple[int, int], size: tuple[int, int], output: tuple[int, int]
) -> Tensor:
    """Each pixel's cluster: that to which it is most akin.

    The kinship of a patch with a cluster is the mean of the rows of its members. It is smoothed by a median
    and brought to full size, so that patches of no cluster find one and borders do not follow patches.

    Args:
        affinity: (h * w, h * w), as given to ``cluster_patches``.
        clusters: (h * w,) as it returned them.
        grid: (h, w).
        size: (H, W) in pixels that the grid covers.
        output: (H', W') in pixels of the result.

    Returns:
        (H', W') int32; all -1 if there is no cluster.
    """
    if not len(clusters) or clusters.max() < 0:
        return torch.full(output, -1, dtype=torch.int32, device=affinity.device)
    maps = _zoomed(affinity, clusters, grid)
    # pixels of the zoomed map that one of the output may be interpolated from lie no farther apart
    apart = max(math.ceil(_ZOOM * cells / pixels) + 1 for cells, pixels in zip(grid, size))
    # a median of 49 lies between the extremes of any 25 of them, so of the inner 5 x 5
    low, high = _extremes(maps, _MEDIAN // 2 - 1 + apart)
    # who wins no pixel that is interpolated from here may have any value that is not greater than its own
    contested = (high >= low.amax(dim=0)).numpy()
    kinship = torch.from_numpy(_medians(maps.numpy(), contested)).to(affinity.device)
    field = ScoreField.from_windows(kinship[None], slide(size), output)
    return field.winners(torch.arange(len(kinship), dtype=torch.int32, device=affinity.device))[1]


def cluster_kinship(affinity: Tensor, clusters: Tensor, grid: tuple[int, int]) -> Tensor:
    """(clusters, 4 h, 4 w) smoothed kinship, see ``regions_of_clusters``."""
    maps = _zoomed(affinity, clusters, grid).numpy()
    return torch.from_numpy(_medians(maps, np.ones_like(maps, bool))).to(affinity.device)


def _zoomed(affinity: Tensor, clusters: Tensor, grid: tuple[int, int]) -> Tensor:
    """(clusters, 4 h, 4 w) kinship, on the CPU."""
    members = F.one_hot(clusters[clusters >= 0]).T.to(affinity)
    means = members @ affinity[(clusters >= 0).to(affinity.device)] / members.sum(dim=1, keepdim=True)
    maps = means.unflatten(1, grid)[None]
    return F.interpolate(maps, scale_factor=_ZOOM, mode="bilinear", align_corners=False)[0].cpu()


def _extremes(maps: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of (n, H, W) maps over squares that reach some pixels to all sides.

    By doubling: max pooling takes twenty times as long.
    """
    both = F.pad(torch.stack([-maps, maps]), (reach,) * 4, mode="replicate")
    for dim in (2, 3):
        width = 1
        while width < 2 * reach + 1:
            step = min(width, 2 * reach + 1 - width)
            rest = both.shape[dim] - step
            both = torch.maximum(both.narrow(dim, 0, rest), both.narrow(dim, step, rest))
            width += step
    return -both[0], both[1]


def _medians(maps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n, H, W) medians of 7 x 7, mirrored at the border, where they are wanted; elsewhere the least of all.

    Where the 7 pixels of a row lie side by side and rows below one another, a window is 49 numbers in a row.
    Windows are sorted a few at a time, in the cache: memory for all of them costs more than the sorting. So
    few numbers NumPy sorts by a network, faster than it partitions them.
    """
    edge, area = _MEDIAN // 2, _MEDIAN**2
    padded = np.pad(maps, ((0, 0), (edge, edge), (edge, edge)), mode="symmetric")
    rows = np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN, axis=2)  # (n, H + 6, W, 7)
    columns = np.ascontiguousarray(rows.transpose(0, 2, 1, 3)).reshape(-1, rows.shape[1] * _MEDIAN)
    windows = np.lib.stride_tricks.sliding_window_view(columns, area, axis=1)[:, ::_MEDIAN]  # (n W, H, 49)
    smooth = np.full(windows.shape[:2], maps.min()).ravel()
    places = np.flatnonzero(wanted.transpose(0, 2, 1))

    def sort(first: int) -> None:
        some = places[first : first + _SORTED]
        values = windows[np.divmod(some, windows.shape[1])]  # a copy
        values.sort(axis=1)
        smooth[some] = values[:, area // 2]

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets the others run
        list(pool.map(sort, range(0, len(places), _SORTED)))
    return smooth.reshape(len(maps), maps.shape[2], -1).transpose(0, 2, 1)
