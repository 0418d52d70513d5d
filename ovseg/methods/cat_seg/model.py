"""CAT-Seg's model: CLIP, the learned upsampling of its inner features, and the cost aggregation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures
from ovseg.dense.readout import Readout
from ovseg.dense.score_field import Layer, ScoreField
from ovseg.dense.view import View
from ovseg.dense.windows import WindowGrid, slide
from ovseg.methods.cat_seg.aggregator import Aggregator
from ovseg.methods.cat_seg.loss import segmentation_loss
from ovseg.methods.cat_seg.tuning import add_prompts
from ovseg.towers.clip import CLIP
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.vocab.text_bank import TextBank

if TYPE_CHECKING:
    from ovseg.methods.cat_seg import CATSeg

__all__ = ["CATSegModel"]

_VIT_ONLY = "a cost aggregation needs the blocks of a ViT; choose a vit_* tower"


class CATSegModel(nn.Module):
    """Scores words on four times the patch grid.

    Args:
        clip: Both towers. In training the text tower runs as well, and its gradients flow.
        method: Settings.
        readout: How the visual tower is read; by default the method's own.

    Raises:
        ValueError: The tower is no ViT.
    """

    def __init__(self, clip: CLIP, method: CATSeg, readout: Readout | None = None) -> None:
        super().__init__()
        if not isinstance(clip.visual, VisionTransformer):
            raise ValueError(_VIT_ONLY)
        self.clip, self.method = clip, method
        config = clip.visual.config
        depth, width = config.blocks.layers, config.blocks.width
        blocks = method.guidance_blocks or (max(depth // 3 - 1, 0), max(2 * depth // 3 - 1, 0))
        self.taps = tuple((block, "out") for block in blocks)
        self.readout = replace(readout or method.readout, taps=self.taps)
        if method.prompts:
            add_prompts(clip, method.prompts)
        head = replace(method.aggregator, embed_dim=config.output_dim)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(width, channels, scale, stride=scale)
            for channels, scale in zip(head.guidance_dims, (2, 4))
        )
        self.aggregator = Aggregator(head)

    @property
    def stride(self) -> int:
        """Pixels per patch of the tower's input."""
        return self.clip.visual.stride

    @property
    def resolution(self) -> int:
        """Pixels along each side of what the tower sees."""
        return self.method.grid * self.stride

    def features(self, image: Tensor) -> DenseFeatures:
        """Dense features in the joint space of normalised images (B, 3, H, W), at their own size."""
        return self.clip.visual.forward_dense(image, self.readout)  # type: ignore[arg-type]

    def guidance(self, features: DenseFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """Image features that guide the aggregation, on one, two and four times the grid."""
        coarse, fine = (
            up(features.taps[tap][:, 1:].transpose(1, 2).unflatten(2, features.grid).float())
            for up, tap in zip(self.upsample, self.taps)
        )
        return features.patches.float(), coarse, fine

    def head(self, features: DenseFeatures, rows: Tensor) -> Tensor:
        """Logits (B, Q, 4 h, 4 w) of words with text embeddings (Q, T, C)."""
        pooling = self.method.train_pooling if self.training else self.method.pooling
        guidance = self.guidance(features)
        fading = self.method.fading if self.training else 0.0
        return self.aggregator(guidance[0], rows.float(), guidance, (pooling, pooling), fading)

    def forward(self, image: Tensor, bank: TextBank) -> Tensor:
        """Logits (B, Q, 4 h, 4 w) of the words in normalised images (B, 3, H, W), at their own size."""
        return self.head(self.features(image), bank.rows)

    def loss(self, image: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """The training loss of normalised images.

        Args:
            image: (B, 3, H, W); resized to what the tower sees.
            labels: (B, H, W) class indices, 255 for none.
            rows: (K, T, C) text embeddings of the classes, with gradients where the text tower is tuned.
        """
        logits = self.head(self.features(self.fit(image)), rows)
        method = self.method
        return segmentation_loss(logits, labels, method.ignored, balanced=method.balanced)

    def fit(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) resized to the tower's input, whatever its shape."""
        size = (self.resolution, self.resolution)
        return F.interpolate(image, size, mode="bilinear", align_corners=False)

    def score_field(self, view: View, bank: TextBank) -> ScoreField:
        """Probabilities of one image: as one window, or as windows of a square and the whole."""
        if self.method.canvas is None:
            return self._whole(view, bank)
        return self._windows(view, bank, self.method.canvas)

    def _whole(self, view: View, bank: TextBank) -> ScoreField:
        """Probabilities at the decoder's resolution, stretched over the image."""
        (image,) = view.batches()
        scores = self(self.fit(image), bank).sigmoid()
        return ScoreField.from_windows(scores, slide(view.output_size))

    def _windows(self, view: View, bank: TextBank, canvas: int) -> ScoreField:
        """Windows of the canvas, and at the weight of all of them a global view."""
        method = self.method
        grid = slide((canvas, canvas), method.window, method.stride)
        once = slide((method.window, method.window))
        layers = [self._layer(view, bank, canvas, grid)]
        if method.glance:
            layers.append(self._layer(view, bank, method.window, once, size=once.size))
        return ScoreField(tuple(layers), grid.size, view.output_size, "sigmoid")

    def _layer(self, view: View, bank: TextBank, side: int, grid: WindowGrid, **arguments: Any) -> Layer:
        """Scores of windows of the image, which is stretched to a square for it."""
        size = (side, side)
        square = F.interpolate(view.image[None], size, mode="bilinear", align_corners=False)[0]
        parts = replace(view, image=square, grid=grid).batches()
        scores = torch.cat([self(self.fit(windows), bank) for windows in parts])
        return Layer(scores.unflatten(0, (len(grid.tops), len(grid.lefts))), *grid.spans(), **arguments)
