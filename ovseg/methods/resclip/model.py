"""ResCLIP's model: a first pass, a label for each patch, the feedback map, the last block once more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ovseg.dense.features import DenseFeatures
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.inference.decision import decide
from ovseg.inference.steps import Floor, Pamr, Softmax
from ovseg.methods.resclip import ResCLIP
from ovseg.methods.resclip.feedback import feedback_map
from ovseg.methods.segmenter import Segmenter
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

__all__ = ["FeedbackSegmenter"]

_PAMR, _SOFTMAX = Pamr(10, (8, 16)), Softmax(40.0)  # of the first pass, in all of the authors' settings


class FeedbackSegmenter(Segmenter):
    """Scores of words after the second pass. ``features`` alone, which knows no words, is the first."""

    method: ResCLIP

    def forward(self, image: Tensor, bank: TextBank) -> Tensor:
        """Scores (B, Q, h, w) of the words in normalised images (B, 3, H, W)."""
        return self.head(self.second_pass(image, bank), bank)

    def second_pass(self, image: Tensor, bank: TextBank) -> DenseFeatures:
        """Dense features after the words' feedback."""
        visual = self.clip.visual
        if not isinstance(visual, VisionTransformer):
            return self.features(image)

        def feedback(features: DenseFeatures) -> Mapping[str, Tensor]:
            return {"feedback": self.feedback(self.patch_labels(features, image, bank))}

        return visual.forward_dense(image, self.readout, feedback=feedback)

    def patch_labels(self, features: DenseFeatures, image: Tensor, bank: TextBank) -> Tensor:
        """(B, h, w) most frequent word among the pixels of each patch; -1 for "unsure"."""
        scores = self.head(features, bank)
        words = _words(scores.shape[1])
        unsure = Floor(self.method.unsure, label=0 if self.method.unsure_label == "first" else -1)
        size = (image.shape[2], image.shape[3])
        h, w, p = *features.grid, features.stride
        labels = []
        for one, picture in zip(scores, image):
            field = ScoreField.from_windows(one[None], slide(size))
            pixels = decide(field, (_PAMR, _SOFTMAX, unsure), words, picture.float()).label_map
            patches = pixels[: h * p, : w * p].unflatten(0, (h, p)).unflatten(2, (w, p)).transpose(1, 2)
            labels.append(patches.flatten(2).mode(dim=2).values)
        return torch.stack(labels)

    def feedback(self, labels: Tensor) -> Tensor:
        """(B, 1 + h * w, 1 + h * w) map for the attention, at most 1; 0 for the class token."""
        method = self.method
        decay = method.path if method.path_decay else None
        near = feedback_map(labels, method.gaussian_std, decay, method.smoothing)
        near = near / near.amax(dim=(1, 2), keepdim=True)
        return torch.nn.functional.pad(near, (1, 0, 1, 0))


@lru_cache(maxsize=4)
def _words(count: int) -> Vocabulary:
    """Every word for itself."""
    return Vocabulary(tuple(VocabularyClass(str(i), (str(i),)) for i in range(count)))
