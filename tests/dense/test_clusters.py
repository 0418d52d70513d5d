"""Clusters of patches against a naive computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.dense import clusters as module
from ovseg.dense.clusters import cluster_patches, regions_of_clusters


def blocks(*sizes):
    """An affinity in which each of some groups of patches looks at itself only."""
    return torch.block_diag(*(torch.ones(size, size) for size in sizes))


def test_groups_are_found_and_strays_are_none():
    affinity = torch.block_diag(blocks(5, 3), torch.zeros(1, 1)) + 0.01 * torch.rand(9, 9)
    affinity[8] = torch.arange(9.0)
    assert cluster_patches(affinity, 0.5, 3).tolist() == [0] * 5 + [1] * 3 + [-1]
    assert cluster_patches(affinity, 0.5, 4).tolist() == [0] * 5 + [-1] * 4


@pytest.mark.parametrize("min_samples", [1, 2, 3, 6])
def test_clusters_are_those_of_scikit_learn(min_samples):
    cluster = pytest.importorskip("sklearn.cluster")
    generator = torch.Generator().manual_seed(min_samples)
    for count in (1, 2, 40, 90):
        places = torch.rand(count, 2, generator=generator)
        affinity = F.pad(places, (0, count - 2)) if count > 1 else torch.ones(1, 1)
        for eps in (0.02, 0.06, 0.1, 0.3, 5.0):
            expected = cluster.DBSCAN(eps=eps, min_samples=min_samples).fit_predict(affinity.double())
            assert cluster_patches(affinity, eps, min_samples).tolist() == expected.tolist()


def naive_regions(affinity, clusters, grid, size, output):
    means = torch.stack([affinity[clusters == c].mean(dim=0) for c in range(int(clusters.max()) + 1)])
    large = F.interpolate(
        means.view(-1, *grid)[None],
        size=(4 * grid[0], 4 * grid[1]),
        mode="bilinear",
        align_corners=False,
    )[0].numpy()
    smooth = np.empty_like(large)
    for c, one in enumerate(large):
        padded = np.pad(one, 3, mode="symmetric")
        for y, x in np.ndindex(*one.shape):
            smooth[c, y, x] = np.median(padded[y : y + 7, x : x + 7])
    full = F.interpolate(torch.from_numpy(smooth)[None], size, mode="bilinear", align_corners=False)
    return F.interpolate(full, output, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("size", "output"), [((48, 80), (48, 80)), ((50, 83), (31, 97))])
def test_regions(size, output):
    torch.manual_seed(0)
    affinity, clusters = torch.rand(15, 15), torch.randint(-1, 3, (15,))
    regions = regions_of_clusters(affinity, clusters, (3, 5), size, output)
    expected = naive_regions(affinity, clusters, (3, 5), size, output)
    top = expected.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-5
    assert clear.float().mean() > 0.9
    assert torch.equal(regions[clear], expected.argmax(dim=0)[clear])


@pytest.mark.parametrize(
    ("size", "output"), [((96, 128), (96, 128)), ((24, 30), (61, 83)), ((100, 131), (40, 50))]
)
def test_regions_where_few_clusters_contest(size, output):
    """Medians that cannot matter are left out; the regions are those of all medians."""
    torch.manual_seed(0)
    grid = (9, 12)
    clusters = (torch.arange(9)[:, None] // 3 * 3 + torch.arange(12) // 4).flatten()
    affinity = (clusters[:, None] == clusters).float() + 0.3 * torch.rand(108, 108)
    regions = regions_of_clusters(affinity, clusters, grid, size, output)
    expected = naive_regions(affinity, clusters, grid, size, output)
    top = expected.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-5
    assert torch.equal(regions[clear].long(), expected.argmax(dim=0)[clear])
    wanted = []
    medians = module._medians
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "_medians", lambda maps, some: wanted.append(some.mean()) or medians(maps, some)
        )
        regions_of_clusters(affinity, clusters, grid, size, output)
    assert wanted[0] < 0.7


def test_without_clusters_no_pixel_has_a_region():
    regions = regions_of_clusters(torch.rand(6, 6), torch.full((6,), -1), (2, 3), (20, 30), (10, 15))
    assert regions.shape == (10, 15)
    assert (regions == -1).all()
