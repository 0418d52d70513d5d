"""The words of a trained component: their embeddings as buffers, so that they travel with its checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.towers.weights import LoadedClip
from ovseg.vocab.text_bank import encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary, VocabularySource

__all__ = ["WordBank"]


class WordBank(nn.Module):
    """Turns dense features into scores of K classes: scaled cosine similarity with each class's best word.

    Args:
        clip: Its text tower encodes the words, once.
        classes: See ``Vocabulary.of``.
        templates: Prompt templates.

    Attributes:
        vocabulary: K classes.
        rows: (Q, C) unit embeddings.
        log_scale: Logarithm of the temperature's inverse; learned, from CLIP's own.
    """

    def __init__(self, clip: LoadedClip, classes: VocabularySource, templates: str = "imagenet80") -> None:
        super().__init__()
        self.vocabulary = Vocabulary.of(classes)
        with torch.no_grad():
            bank = encode_vocabulary(clip.model, clip.tokenizer, self.vocabulary, templates)
        self.rows: Tensor
        self.word_to_class: Tensor
        self.register_buffer("rows", bank.matrix.clone())
        self.register_buffer("word_to_class", bank.word_to_class.clone())
        self.log_scale = nn.Parameter(clip.model.logit_scale.detach().clone().float())

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) features to logits (B, K, h, w)."""
        scores = torch.einsum("bchw,qc->bqhw", F.normalize(features.float(), dim=1), self.rows)
        return self.classes(scores)

    @property
    def scale(self) -> Tensor:
        """The temperature's inverse, at most 100 as in CLIP."""
        return self.log_scale.exp().clamp(max=100)

    def classes(self, scores: Tensor) -> Tensor:
        """Cosines (B, Q, h, w) to logits (B, K, h, w)."""
        logits = scores * self.scale
        count = len(self.vocabulary)
        if count == len(self.word_to_class):
            return logits
        index = self.word_to_class[None, :, None, None].expand_as(logits)
        best = logits.new_full((len(logits), count, *logits.shape[2:]), -torch.inf)
        return best.scatter_reduce(1, index, logits, "amax")
