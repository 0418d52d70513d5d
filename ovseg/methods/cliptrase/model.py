"""CLIPtrase's model: scores as usual, and clusters of patches as regions beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.clusters import cluster_patches, regions_of_clusters
from ovseg.dense.features import DenseFeatures
from ovseg.dense.score_field import ScoreField
from ovseg.dense.view import View
from ovseg.methods.cliptrase import CLIPtrase
from ovseg.methods.segmenter import Segmenter, cosine_scores
from ovseg.towers.linear import linear
from ovseg.vocab.text_bank import TextBank

__all__ = ["ClusterSegmenter", "patch_affinity", "self_correlation"]


class ClusterSegmenter(Segmenter):
    """Scores of words, and regions where the image is one window."""

    method: CLIPtrase

    def head(self, features: DenseFeatures, bank: TextBank) -> Tensor:
        """Cosine similarity (B, Q, h, w), weighted by the class token's if the method says so."""
        scores = cosine_scores(features.patches, bank.matrix)
        if self.method.cls_weighting and features.cls is not None:
            scores = scores * cosine_scores(features.cls[:, :, None, None], bank.matrix)
        return scores

    def clusters(self, features: DenseFeatures) -> tuple[Tensor, Tensor]:
        """Affinity (N, N) of the patches of one image and their clusters (N,)."""
        heads = self.clip.visual.config.blocks.heads  # type: ignore[union-attr]
        parts = (features.taps[-2, site] for site in "qkv")
        affinity = patch_affinity(self_correlation(parts, heads)[0].detach())
        return affinity, cluster_patches(affinity, *self.method.neighbourhood(len(affinity)))

    def score_field(self, view: View, bank: TextBank) -> ScoreField:
        """Scores of one image; with regions, where it is one window."""
        if len(view.grid) > 1:
            return super().score_field(view, bank)
        features = self.features(next(view.batches()))
        affinity, clusters = self.clusters(features)
        regions = regions_of_clusters(affinity, clusters, features.grid, view.grid.size, view.output_size)
        field = ScoreField.from_windows(self.head(features, bank), view.grid, view.output_size)
        return replace(field, regions=regions)


def self_correlation(parts: Iterable[Tensor], heads: int) -> Tensor:
    """Mean over q, k and v and over heads of the cosine similarity of tokens.

    Args:
        parts: q, k and v, each (B, N, D) with the heads side by side.
        heads: How many.

    Returns:
        (B, N, N).
    """
    unit = torch.cat([F.normalize(part.float().unflatten(2, (heads, -1)), dim=3) for part in parts], dim=2)
    count = unit.shape[2]  # 3 * heads
    return torch.stack([linear(one, one) for one in unit.flatten(2)]).div_(count)


def patch_affinity(correlation: Tensor) -> Tensor:
    """Correlation of patches less that of the class token with each, negative ones 0: (N, N) to (N-1, N-1).

    What the class token correlates with are the "global" patches, to which all others are drawn.
    """
    return (correlation[1:, 1:] - correlation[:1, 1:]).clamp(min=0)
