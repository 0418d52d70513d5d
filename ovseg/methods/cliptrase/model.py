"""CLIPtrase's model: scores as usual, and clusters of patches as regions beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ovseg.dense.clusters import cluster_patches, gram, regions_of_clusters
from ovseg.dense.features import DenseFeatures
from ovseg.dense.score_field import ScoreField
from ovseg.dense.view import View
from ovseg.methods.cliptrase import CLIPtrase
from ovseg.methods.segmenter import Segmenter, cosine_scores
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
        affinity = patch_affinity(self_correlation(parts, heads)[0])
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
        (B, N, N), without gradient.
    """
    heads_of = [part.detach().float().unflatten(2, (heads, -1)) for part in parts]
    batch, tokens, _, width = heads_of[0].shape
    count = len(heads_of) * heads
    unit = heads_of[0].new_empty(batch, tokens, count, width)
    for one, out in zip(heads_of, unit.split(heads, dim=2)):
        torch.div(one, one.norm(dim=3, keepdim=True).clamp_(min=1e-12), out=out)
    return torch.stack([gram(one) for one in unit.flatten(2)]).div_(count)


def patch_affinity(correlation: Tensor) -> Tensor:
    """Correlation of patches less that of the class token with each, negative ones 0: (N, N) to (N-1, N-1).

    What the class token correlates with are the "global" patches, to which all others are drawn.
    """
    return (correlation[1:, 1:] - correlation[:1, 1:]).clamp(min=0)
