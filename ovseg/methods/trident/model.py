"""Trident's model: windows are spliced as features, and SAM's attention joins the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.features import DenseFeatures
from ovseg.dense.readout import Readout
from ovseg.dense.score_field import ScoreField
from ovseg.dense.view import View
from ovseg.dense.windows import WindowGrid, slide
from ovseg.methods.proxyclip import mean_similarity
from ovseg.methods.segmenter import cosine_scores
from ovseg.methods.trident.aggregate import Encoding, aggregate
from ovseg.methods.two_towers import TwoTowerSegmenter
from ovseg.towers.auxiliary import auxiliary_tower, require_auxiliary
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.towers.sam import SamTower
from ovseg.towers.sam_masks import SamMasks
from ovseg.vocab.text_bank import TextBank

if TYPE_CHECKING:
    from ovseg.methods.trident import Trident
    from ovseg.towers.clip import CLIP

__all__ = ["TridentSegmenter", "whole_patches"]

_BATCH = 4  # windows per forward where no view says how many


class TridentSegmenter(TwoTowerSegmenter):
    """Dense features of a whole image on SAM's grid, or without SAM on that of the windows."""

    def __init__(self, clip: CLIP, method: Trident, readout: Readout) -> None:
        super().__init__(clip, method, readout, method.auxiliary)
        if isinstance(method.sam, str):
            require_auxiliary(method.sam)
        self.settings = method

    def features(self, image: Tensor) -> DenseFeatures:
        """Dense features in the joint space of normalised images (B, 3, H, W), each on its own."""
        if not isinstance(self.clip.visual, VisionTransformer):
            return super().features(image)
        size = (image.shape[2], image.shape[3])
        views = (
            View(one, slide(size), size, self.clip.mean, self.clip.std, _BATCH, image.dtype)
            for one in self.pixels(image).float()
        )
        maps = torch.stack([self._map(view, self.encode(self.picture(view), view)) for view in views])
        return DenseFeatures(maps, None, max(round(size[0] / maps.shape[2]), 1))

    def score_field(self, view: View, bank: TextBank) -> ScoreField:
        """Scores of one image. The windows are the method's own; those of the view are not used."""
        picture = self.picture(view)
        encodings = self.encode(picture, view)
        scores = cosine_scores(self._map(view, encodings)[None], bank.matrix)
        field = ScoreField.from_windows(scores, slide(view.output_size))
        sam = self._sam(view)
        if not isinstance(sam, SamTower):
            return field
        whole = encodings[0] if len(encodings) == 1 else None
        size = (picture.shape[0], picture.shape[1])
        masks = SamMasks(sam, lambda: whole or sam.encode(picture), size, view.output_size)
        return replace(field, masks=masks)

    def windows(self, view: View) -> View:
        """The image in whole patches, with the method's windows."""
        image = whole_patches(view.image, self.stride, self.settings.window)
        size = (image.shape[1], image.shape[2])
        return replace(view, image=image, grid=slide(size, self.settings.window, self.settings.window_stride))

    def window_tokens(self, view: View) -> Tensor:
        """(n, D, I, J) of all windows after the proxy attention, on the auxiliary tower's grid."""
        crops = [crop.to(view.dtype) for crop in view.crops()]
        guides = [self.auxiliary(crop)(crop).patches for crop in crops]
        likeness = torch.cat([mean_similarity(guide) for guide in guides]).mean()  # over the whole image
        visual: Any = self.clip.visual
        tokens = []
        for normalised, guide in zip(view.batches(), guides):
            extra = {"features": guide, "mean_similarity": likeness.expand(len(guide))}
            tokens.append(visual.forward_dense(normalised, self.readout, extra).patches)
        return torch.cat(tokens)

    def splice(self, tokens: Tensor, windows: WindowGrid) -> Tensor:
        """(D, h, w) map of the whole image from (n, D, I, J), overlaps averaged.

        Its sides are a whole multiple of CLIP's grid, the nearest to the auxiliary tower's.
        """
        patch = self.stride
        inner = (windows.crop[0] // patch, windows.crop[1] // patch)
        ratio = max(round(tokens.shape[2] / inner[0]), 1)
        target = (inner[0] * ratio, inner[1] * ratio)
        if tokens.shape[2:] != target:
            tokens = F.interpolate(tokens, target, mode="bilinear", align_corners=False)
        size = [side // patch * ratio for side in windows.size]
        canvas, count = tokens.new_zeros(tokens.shape[1], *size), tokens.new_zeros(size)
        for part, box in zip(tokens, windows.boxes()):
            top, left, bottom, right = (edge // patch * ratio for edge in box)
            canvas[:, top:bottom, left:right] += part
            count[top:bottom, left:right] += 1
        return canvas / count

    def fuse(self, canvas: Tensor, encodings: Sequence[Encoding]) -> Tensor:
        """(D, h', w') on SAM's grid: the map (D, h, w), averaged by SAM's attention.

        Several encodings are those of as many parts of the image, from left to right. Without any the map
        stays as it is.
        """
        if not encodings:
            return canvas
        step = canvas.shape[2] // len(encodings)
        edges = [*range(0, step * len(encodings), step), canvas.shape[2]]
        s, fused = self.settings, []
        for left, right, encoding in zip(edges, edges[1:], encodings):
            part = canvas[None, :, :, left:right]
            part = F.interpolate(part, encoding.grid, mode="bilinear", align_corners=False)[0]
            tokens = aggregate(part.flatten(1).T, encoding, s.cos_factor, s.negative_threshold)
            fused.append(tokens.T.unflatten(1, encoding.grid))
        return torch.cat(fused, dim=2)

    def picture(self, view: View) -> np.ndarray:
        """(H, W, 3) uint8 that SAM looks at: the picture at its own size, stretched to whole patches."""
        source = view.source if view.source is not None else _bytes(view.image)
        height, width = (-(-side // self.stride) * self.stride for side in source.shape[:2])
        return cv2.resize(source, (width, height))

    def encode(self, picture: np.ndarray, view: View) -> list[Any]:
        """The picture (H, W, 3) in SAM's encoder, or its two halves; nothing where there is no SAM."""
        if self.settings.sam is None:
            return []
        middle = picture.shape[1] // 2
        parts = [picture[:, :middle], picture[:, middle:]] if self.settings.split_halves else [picture]
        return [self._sam(view).encode(np.ascontiguousarray(part)) for part in parts]

    def _map(self, view: View, encodings: Sequence[Encoding]) -> Tensor:
        """(C, h', w') of one image."""
        windows = self.windows(view)
        canvas = self.splice(self.window_tokens(windows), windows.grid)
        visual: Any = self.clip.visual
        return visual.tail(self.fuse(canvas, encodings).movedim(0, -1)).movedim(-1, 0)

    def _sam(self, view: View) -> Any:
        sam = self.settings.sam
        return auxiliary_tower(sam, view.image.device, view.dtype) if isinstance(sam, str) else sam


def whole_patches(image: Tensor, patch: int, window: int) -> Tensor:
    """(C, H, W) stretched to sides that are multiples of the patch and at least a window, if they are not."""
    height, width = image.shape[1:]
    if height % patch == 0 and width % patch == 0:
        return image
    longest = max(height, width)
    scaled = -(-longest // patch) * patch
    sides = (-(-int(side * scaled / longest) // patch) * patch for side in (height, width))
    size = tuple(max(side, window) for side in sides)
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]


def _bytes(image01: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8."""
    scaled = (image01.float().clamp(0, 1) * 255).round().byte()
    return scaled.permute(1, 2, 0).contiguous().cpu().numpy()
