"""What a prediction needs besides the image: words that compete, their embeddings, the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ovseg.inference.background import BackgroundRule
from ovseg.inference.decision import Labels
from ovseg.inference.protocol import Protocol
from ovseg.inference.results import SegResult
from ovseg.inference.steps import Softmax, Step
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.cache import TextCache
from ovseg.vocab.text_bank import TextBank, encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Plan", "Planner"]

_STRIP_ROWS = 256


@dataclass(frozen=True)
class Plan:
    """All that does not change from image to image.

    Attributes:
        bank: Rows of all words that compete.
        vocabulary: Of the results.
        steps: The decision.
        kept: Classes of the bank's vocabulary that results may have, in order; None for all.
    """

    bank: TextBank
    vocabulary: Vocabulary
    steps: tuple[Step, ...]
    kept: list[int] | None = None

    def result(
        self,
        labels: Labels,
        protocol: str,
        source: str | None,
        image: np.ndarray | None,
        seconds: float,
    ) -> SegResult:
        """The result for a decision; background classes leave it, the others close up."""
        label_map, by_class = labels.label_map.cpu().numpy(), labels.class_scores
        if self.kept is not None:
            index = np.full(len(self.bank.vocabulary) + 1, -1, np.int32)  # the last entry serves -1
            index[self.kept] = np.arange(len(self.kept))
            for top in range(0, len(label_map), _STRIP_ROWS):  # indexing takes 12 bytes a pixel
                label_map[top : top + _STRIP_ROWS] = index[label_map[top : top + _STRIP_ROWS]]
            by_class = by_class[self.kept] if by_class is not None else None
        all_scores = by_class.half().cpu().numpy() if by_class is not None else None
        scores = labels.scores.half().cpu().numpy()
        return SegResult(label_map, scores, self.vocabulary, protocol, source, image, all_scores, seconds)


class Planner:
    """Turns vocabularies into plans, for the weights and the protocol of a predictor.

    Attributes:
        templates: Name of a template set, or the templates; the protocol's at first.
    """

    def __init__(self, clip: LoadedClip, protocol: Protocol) -> None:
        self.clip, self.protocol = clip, protocol
        self.templates: str | tuple[str, ...] = protocol.templates
        self._cache = TextCache()
        self._last: tuple[object, TextBank] | None = None

    def plan(self, vocabulary: Vocabulary, background: str | None) -> Plan:
        """The plan for a user's vocabulary.

        Args:
            vocabulary: The user's.
            background: A rule (``BackgroundRule.parse``), or None for the protocol's.

        Raises:
            ValueError: The rule is unknown, every class is background, or a word cannot be encoded.
        """
        steps = self._resolved(self.protocol.steps)
        spec = background or self.protocol.background
        if spec is None:
            return Plan(self.bank(vocabulary), vocabulary, steps)
        rule = BackgroundRule.parse(spec)
        competing = rule.vocabulary(vocabulary, self.clip.info.background_words)
        kept = [i for i, item in enumerate(competing.classes) if not item.is_background]
        if not kept:
            raise ValueError("all classes are marked as background; leave the '!' off at least one")
        bank, steps = self.bank(competing), (*steps, *rule.steps(competing))
        if len(kept) == len(competing):
            return Plan(bank, vocabulary, steps)
        real = Vocabulary(tuple(competing.classes[i] for i in kept), vocabulary.name)
        return Plan(bank, real, steps, kept)

    @torch.inference_mode()
    def bank(self, vocabulary: Vocabulary) -> TextBank:
        """Embeddings of a vocabulary's words; the last ones are kept, and all are cached on disk."""
        if self.protocol.synonyms == "first":
            classes = (replace(item, words=item.words[:1]) for item in vocabulary.classes)
            vocabulary = Vocabulary(tuple(classes), vocabulary.name)
        key = (vocabulary, self.templates)
        if self._last is None or self._last[0] != key:
            bank = encode_vocabulary(
                self.clip.model,
                self.clip.tokenizer,
                vocabulary,
                self.templates,
                average=self.protocol.average,
                cache=self._cache,
            )
            self._last = key, bank
        return self._last[1]

    def _resolved(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        own = float(self.clip.model.logit_scale.detach().exp())
        return tuple(
            replace(step, scale=own) if isinstance(step, Softmax) and step.scale is None else step
            for step in steps
        )
