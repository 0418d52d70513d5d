"""The model of every training-free method: a CLIP, a readout, and cosine similarity with the words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures
from ovseg.dense.readout import Readout
from ovseg.dense.score_field import ScoreField
from ovseg.dense.view import View
from ovseg.methods.method import Method
from ovseg.towers.clip import CLIP
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.vocab.text_bank import TextBank

__all__ = ["Segmenter", "cosine_scores"]


class Segmenter(nn.Module):
    """Scores words at every patch.

    Args:
        clip: Both towers; only the visual one runs here.
        method: Gives the treatment of ResNets and the refinement of scores.
        readout: How the visual tower is read; by default the method's own.
    """

    def __init__(self, clip: CLIP, method: Method, readout: Readout | None = None) -> None:
        super().__init__()
        self.clip = clip
        self.method = method
        self.readout = readout or method.readout

    @property
    def stride(self) -> int:
        """Pixels per grid step."""
        return self.clip.visual.stride

    def features(self, image: Tensor) -> DenseFeatures:
        """Dense features in the joint space of normalised images (B, 3, H, W)."""
        visual = self.clip.visual
        if isinstance(visual, VisionTransformer):
            return visual.forward_dense(image, self.readout)
        return self.method.read_resnet(visual, image)

    def head(self, features: DenseFeatures, bank: TextBank) -> Tensor:
        """Scores (B, Q, h, w) of the words: cosine similarity, then the method's refinement."""
        scores = cosine_scores(features.patches, bank.matrix)
        return self.method.refine(scores, features, self.clip.visual)

    def forward(self, image: Tensor, bank: TextBank) -> Tensor:
        """Scores (B, Q, h, w) of the words in normalised images (B, 3, H, W)."""
        return self.head(self.features(image), bank)

    def score_field(self, view: View, bank: TextBank) -> ScoreField:
        """Scores of one image, window by window."""
        scores = [self(windows, bank) for windows in view.batches()]
        return ScoreField.from_windows(_joined(scores), view.grid, view.output_size)


def cosine_scores(patches: Tensor, rows: Tensor) -> Tensor:
    """Cosine similarity of patches (B, C, h, w) with unit rows (Q, C): (B, Q, h, w), float32."""
    tokens = patches.flatten(2).float()
    scores = rows.float() @ tokens / tokens.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return scores.unflatten(2, patches.shape[2:])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
