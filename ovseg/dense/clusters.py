"""Clusters of patches that attend alike, and the regions of pixels that they stand for (CLIPtrase)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide

__all__ = ["cluster_kinship", "cluster_patches", "regions_of_clusters"]

_ZOOM = 4  # cluster maps are smoothed at this multiple of the patch grid
_MEDIAN = 2 * _ZOOM - 1
_SORTED = 1024  # medians found at once: 200 kB


def cluster_patches(affinity: Tensor, eps: float, min_samples: int) -> Tensor:
    """DBSCAN over the rows of an affinity.

    Args:
        affinity: (N, N); patches belong together where their whole rows are alike.
        eps: Largest Euclidean distance of two rows that are neighbours. It grows with sqrt(N).
        min_samples: Neighbours, itself included, that make a patch the core of a cluster.

    Returns:
        (N,) int64 clusters from 0 on, -1 for patches of none.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    clusters = _dbscan()(eps=eps, min_samples=min_samples).fit_predict(affinity.float().cpu().numpy())
    return torch.from_numpy(clusters.astype(np.int64))


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
        (H', W') int64; all -1 if there is no cluster.
    """
    if not len(clusters) or clusters.max() < 0:
        return torch.full(output, -1, dtype=torch.int64, device=affinity.device)
    kinship = cluster_kinship(affinity, clusters, grid)
    field = ScoreField.from_windows(kinship[None], slide(size), output)
    regions = torch.empty(output, dtype=torch.int64, device=affinity.device)
    for rows, cols in field.blocks():
        regions[rows, cols] = field.best(rows, cols)[1]
    return regions


def cluster_kinship(affinity: Tensor, clusters: Tensor, grid: tuple[int, int]) -> Tensor:
    """(clusters, 4 h, 4 w) smoothed kinship, see ``regions_of_clusters``."""
    members = F.one_hot(clusters[clusters >= 0]).T.to(affinity)
    means = members @ affinity[(clusters >= 0).to(affinity.device)] / members.sum(dim=1, keepdim=True)
    zoomed = F.interpolate(
        means.unflatten(1, grid)[None], scale_factor=_ZOOM, mode="bilinear", align_corners=False
    )
    smooth = _medians(zoomed[0].cpu().numpy())
    return torch.from_numpy(smooth).to(affinity.device)


def _medians(maps: np.ndarray) -> np.ndarray:
    """(n, H, W) medians of 7 x 7, mirrored at the border. Many times faster than SciPy's filter.

    Windows are sorted a few at a time, in the cache: memory for all of them costs more than the sorting.
    """
    edge, middle = _MEDIAN // 2, _MEDIAN**2 // 2
    padded = np.pad(maps, ((0, 0), (edge, edge), (edge, edge)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (1, _MEDIAN, _MEDIAN))[:, :, :, 0]
    _, height, width = maps.shape
    smooth, step = np.empty_like(maps), max(_SORTED // width, 1)

    def fill(part: tuple[int, int]) -> None:
        number, top = part
        values = windows[number, top : top + step].reshape(-1, _MEDIAN**2)  # a copy
        values.partition(middle, axis=1)
        smooth[number, top : top + step] = values[:, middle].reshape(-1, width)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # NumPy sorts without holding the lock
        list(threads.map(fill, product(range(len(maps)), range(0, height, step))))
    return smooth


def _dbscan() -> Any:
    try:
        from sklearn.cluster import DBSCAN
    except ImportError as error:
        message = "clustering needs scikit-learn: pip install 'ovseg[cluster]'"
        raise ImportError(message) from error
    return DBSCAN
