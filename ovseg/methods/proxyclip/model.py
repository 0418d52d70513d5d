"""ProxyCLIP's model: the auxiliary features of the same window go into the attention."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ovseg.dense.features import DenseFeatures
from ovseg.methods.two_towers import TwoTowerSegmenter
from ovseg.towers.clip_vit import VisionTransformer

__all__ = ["ProxySegmenter"]


class ProxySegmenter(TwoTowerSegmenter):
    """Dense features of CLIP on the grid of the auxiliary tower."""

    def features(self, image: Tensor) -> DenseFeatures:
        """See ``Segmenter.features``; the grid is the auxiliary tower's."""
        visual = self.clip.visual
        if not isinstance(visual, VisionTransformer):
            return super().features(image)
        guide = self.auxiliary(image)(self.pixels(image))
        features = visual.forward_dense(image, self.readout, {"features": guide.patches})
        return replace(features, stride=max(round(image.shape[2] / features.grid[0]), 1))
