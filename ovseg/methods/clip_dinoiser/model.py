"""CLIP-DINOiser's models: features pooled by a learned affinity, or by DINO's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures
from ovseg.dense.operators import pool
from ovseg.dense.readout import Readout
from ovseg.methods.clip_dinoiser.dino import last_block
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.segmenter import Segmenter, cosine_scores
from ovseg.methods.two_towers import TwoTowerSegmenter
from ovseg.towers.clip import CLIP
from ovseg.vocab.text_bank import TextBank

if TYPE_CHECKING:
    from ovseg.methods.clip_dinoiser import CLIPDINOiser, DinoCLIP

__all__ = ["DinoCLIPSegmenter", "DinoiserSegmenter", "uncertain_background"]


class DinoiserSegmenter(Segmenter):
    """CLIP and two convolutions.

    ``obj_proj`` and ``bkg_decoder`` keep the published names.
    """

    def __init__(self, clip: CLIP, method: CLIPDINOiser, readout: Readout) -> None:
        super().__init__(clip, method, readout)
        self.settings = method
        visual = clip.config.vision
        width = visual.blocks.width if method.guide == "ln_2" else visual.output_dim  # type: ignore[union-attr]
        self.obj_proj = nn.Conv2d(
            width, method.channels, method.kernel, padding=method.kernel // 2, padding_mode="replicate"
        )
        self.bkg_decoder = nn.Conv2d(width, 1, 1)

    def unpooled(self, image: Tensor) -> DenseFeatures:
        """MaskCLIP's features with what the convolutions read."""
        return super().features(image)

    def guide(self, features: DenseFeatures) -> Tensor:
        """(B, D, h, w) what the convolutions read."""
        if self.settings.guide == "final":
            return features.patches
        tokens = features.taps[self.settings.guide_block, "ln_2"]
        return tokens[:, 1:].transpose(1, 2).unflatten(2, features.grid)

    def affinity(self, guide: Tensor) -> Tensor:
        """(B, E, h, w) whose cosine similarities are the learned affinity."""
        return self.obj_proj(guide.to(self.obj_proj.weight.dtype))

    def background_logits(self, guide: Tensor) -> Tensor:
        """(B, 1, h, w): positive where an object is."""
        return self.bkg_decoder(F.normalize(guide.to(self.bkg_decoder.weight.dtype), dim=1))

    def pooling_guide(self, image: Tensor) -> Tensor:
        """(B, E, h, w) whose cosine similarities weight the pooling, of normalised images."""
        return self.affinity(self.guide(self.unpooled(image)))

    def features(self, image: Tensor) -> DenseFeatures:
        """Pooled features of normalised images (B, 3, H, W)."""
        features = self.unpooled(image)
        affinity = self.affinity(self.guide(features))
        pooled = pool(features.patches.to(affinity.dtype), affinity, self.settings.gamma)
        if self.settings.guide == "final" and self.settings.uncertain_background is not None:
            # the background convolution reads what the pooling replaces
            return replace(features, patches=pooled, taps={(-1, "out"): features.patches})
        return replace(features, patches=pooled)

    def head(self, features: DenseFeatures, bank: TextBank) -> Tensor:
        """Probabilities (B, Q, h, w)."""
        scores = cosine_scores(features.patches, bank.matrix)
        probabilities = (self.settings.scale * scores).softmax(dim=1)
        if self.settings.uncertain_background is None:
            return probabilities
        final = self.settings.guide == "final"
        guide = features.taps[-1, "out"] if final else self.guide(features)
        return uncertain_background(probabilities, self.background_logits(guide), bank, self.settings)


class DinoCLIPSegmenter(TwoTowerSegmenter):
    """CLIP and its teachers."""

    def __init__(self, clip: CLIP, method: DinoCLIP, readout: Readout) -> None:
        super().__init__(clip, method, readout, method.auxiliary)
        self.settings = method
        self.saliency = Found.pretrained() if method.saliency == "found" else method.saliency
        if method.uncertain_background is not None and self.saliency is None:
            raise ValueError("uncertain_background needs to know where objects are: saliency='found'")

    def guide(self, image: Tensor) -> Tensor:
        """(B, D, h', w') keys or values of DINO's last block, heads concatenated, on DINO's grid."""
        (guide,) = last_block(self.auxiliary(image), self.pixels(image), self.settings.feature)
        return guide

    pooling_guide = guide
    """What weights the pooling, as in ``DinoiserSegmenter``."""

    def features(self, image: Tensor) -> DenseFeatures:
        """Pooled features; DINO's grid is brought to CLIP's where they differ."""
        features, guide = super().features(image), self.guide(image)
        if guide.shape[2:] != features.patches.shape[2:]:
            guide = F.interpolate(guide, features.grid, mode="bilinear", align_corners=False)
        return replace(features, patches=pool(features.patches, guide, self.settings.gamma))

    def forward(self, image: Tensor, bank: TextBank) -> Tensor:
        """Probabilities (B, Q, h, w)."""
        features = self.features(image)
        scores = cosine_scores(features.patches, bank.matrix)
        probabilities = (self.settings.scale * scores).softmax(dim=1)
        if self.settings.uncertain_background is None or self.saliency is None:
            return probabilities
        logits = self.saliency(self.pixels(image))
        if logits.shape[2:] != features.patches.shape[2:]:
            logits = F.interpolate(logits, features.grid, mode="bilinear", align_corners=False)
        return uncertain_background(probabilities, logits, bank, self.settings)


def uncertain_background(
    probabilities: Tensor, logits: Tensor, bank: TextBank, settings: CLIPDINOiser | DinoCLIP
) -> Tensor:
    """Gives uncertain patches without an object to the background class (section 3.3).

    Its probability becomes 1 there, and the others stay as they are, so that they do not sum to one: windows
    and upsampling mix these values, and published numbers depend on them.

    Args:
        probabilities: (B, Q, h, w).
        logits: (B, 1, h, w), positive where an object is.
        bank: Says which words are the background class's.
        settings: ``delta`` and ``uncertain_background``.
    """
    unsure = probabilities.amax(dim=1, keepdim=True) < settings.delta
    words = bank.word_to_class.eq(settings.uncertain_background)  # type: ignore[arg-type]  # not None here
    return probabilities.masked_fill(unsure & (logits <= 0) & words[None, :, None, None], 1.0)
