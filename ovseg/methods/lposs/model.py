"""LPOSS's model: the patches of all windows form one graph, over which their scores spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.features import DenseFeatures
from ovseg.dense.operators import SparseGraph, propagate
from ovseg.dense.readout import Readout
from ovseg.dense.score_field import Layer, ScoreField
from ovseg.dense.view import View
from ovseg.dense.windows import Pad, WindowGrid, slide
from ovseg.methods.lposs.graphs import patch_graph, pixel_graph
from ovseg.methods.two_towers import TwoTowerSegmenter
from ovseg.towers.dino import read_taps
from ovseg.vocab.text_bank import TextBank

if TYPE_CHECKING:
    from ovseg.methods.lposs import LPOSS
    from ovseg.towers.clip import CLIP

__all__ = ["LPOSSSegmenter", "Patches", "best_words"]


@dataclass(frozen=True)
class Patches:
    """All patches of all windows of an image.

    Attributes:
        scores: (N, Q) cosine similarity with the words.
        features: (N, C) of the auxiliary tower, of unit length.
        centres: (N, 2) in pixels of the resized image.
        grid: (h, w) patches of a window.
    """

    scores: Tensor
    features: Tensor
    centres: Tensor
    grid: tuple[int, int]


class LPOSSSegmenter(TwoTowerSegmenter):
    """Scores words at every patch, and spreads the scores over the patches of the whole image."""

    def __init__(self, clip: CLIP, method: LPOSS, readout: Readout) -> None:
        super().__init__(clip, method, readout, method.auxiliary)
        self.settings = method

    def features(self, image: Tensor) -> DenseFeatures:
        """See ``Segmenter.features``. What is missing to whole patches is padded with black."""
        return super().features(self._normalised(Pad(self.stride)(self.pixels(image)), image.dtype))

    def forward(self, image: Tensor, bank: TextBank) -> Tensor:
        """Scores (B, Q, h, w) of each image as one window, on the grid of the auxiliary tower."""
        grid = slide((image.shape[2], image.shape[3]))
        patches = [self._patches([one[None]], grid, bank, image.dtype) for one in self.pixels(image)]
        return torch.cat([self._mosaic(self.spread(each), each) for each in patches])

    def score_field(self, view: View, bank: TextBank) -> ScoreField:
        """Scores of one image, from all its windows at once."""
        patches = self.patches(view, bank)
        field = ScoreField.from_windows(
            self._mosaic(self.spread(patches), patches), view.grid, view.output_size
        )
        if self.settings.pixel_refine:
            scores = _at_size(view.grid.size, field)
            field = _of_pixels(self.spread_pixels(scores, view.image), view)
        merged = self.settings.merge_words_first and len(bank.vocabulary.words) > len(bank.vocabulary)
        return _of_pixels(best_words(_at_size(view.grid.size, field), bank), view) if merged else field

    def patches(self, view: View, bank: TextBank) -> Patches:
        """The patches of all windows."""
        return self._patches(view.crops(), view.grid, bank, view.dtype)

    def graph(self, patches: Patches) -> SparseGraph:
        """The graph over patches."""
        s = self.settings
        return patch_graph(
            patches.features, patches.centres, s.neighbours, s.gamma, s.sigma, s.distance_power
        )

    def spread(self, patches: Patches) -> Tensor:
        """Scores (N, Q) of patches after propagation."""
        s = self.settings
        return propagate(self.graph(patches), patches.scores, s.alpha, s.iterations, s.tolerance)

    def spread_pixels(self, scores: Tensor, image01: Tensor) -> Tensor:
        """Scores (Q, H, W) of pixels after propagation over an image (3, H, W) in [0, 1]."""
        s = self.settings
        graph = pixel_graph(image01, s.pixel_window, s.tau)
        spread = propagate(graph, scores.flatten(1).T, s.alpha, s.iterations, s.tolerance)
        return spread.T.unflatten(1, scores.shape[1:])

    def _patches(
        self, crops: Iterable[Tensor], windows: WindowGrid, bank: TextBank, dtype: torch.dtype
    ) -> Patches:
        scores, features = [], []
        grid, stride = (0, 0), 1
        for crop in crops:
            tower = self.auxiliary(crop.to(dtype))
            tap = (-1, self.settings.site)
            taps, grid = read_taps(tower, Pad(tower.stride)(crop).to(dtype), (tap,))
            stride, tokens = tower.stride, taps[tap][:, -grid[0] * grid[1] :]  # less the class token
            features.append(F.normalize(tokens.float(), dim=2).flatten(0, 1))
            dense = super().features(self._normalised(Pad(self.stride)(crop), dtype))
            scores.append(_cosines(dense.patches.float(), grid, bank.matrix.float()))
        steps = [(torch.arange(n, device=crop.device) * stride + stride // 2).float() for n in grid]
        inner = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=2).view(-1, 2)
        corners = inner.new_tensor([box[:2] for box in windows.boxes()])
        centres = (corners[:, None] + inner).view(-1, 2)
        return Patches(torch.cat(scores), torch.cat(features), centres, grid)

    def _normalised(self, image01: Tensor, dtype: torch.dtype) -> Tensor:
        mean, std = (image01.new_tensor(values)[:, None, None] for values in (self.clip.mean, self.clip.std))
        return ((image01 - mean) / std).to(dtype)

    @staticmethod
    def _mosaic(scores: Tensor, patches: Patches) -> Tensor:
        """(N, Q) to (windows, Q, h, w)."""
        h, w = patches.grid
        return scores.unflatten(0, (-1, h, w)).permute(0, 3, 1, 2)


def _cosines(dense: Tensor, grid: tuple[int, int], rows: Tensor) -> Tensor:
    """Cosines (B * h * w, Q) of features (B, C, ...), their directions brought to another grid if need be."""
    unit = F.normalize(dense, dim=1)
    if unit.shape[2:] != grid:
        unit = F.interpolate(unit, grid, mode="bilinear", align_corners=False)
        unit = F.normalize(unit, dim=1)
    return unit.permute(0, 2, 3, 1).flatten(0, 2) @ rows.T


def _at_size(size: tuple[int, int], field: ScoreField) -> Tensor:
    """The scores (Q, H, W) of a field at the size of its resized image."""
    return ScoreField(field.layers, size, size).full()


def _of_pixels(scores: Tensor, view: View) -> ScoreField:
    """A field of scores (Q, H, W) at the size of the resized image."""
    rows, cols = slide(view.grid.size).spans()
    return ScoreField((Layer(scores[None, None], rows, cols),), view.grid.size, view.output_size)


def best_words(scores: Tensor, bank: TextBank) -> Tensor:
    """Every word takes the score of the best word of its class: (Q, H, W) to the same."""
    index = bank.word_to_class.to(scores.device)[:, None, None].expand_as(scores)
    best = scores.new_full((len(bank.vocabulary), *scores.shape[1:]), -torch.inf)
    return best.scatter_reduce_(0, index, scores, "amax").gather(0, index)
