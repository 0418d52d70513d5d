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
from ovseg.vocab.bank_file import SavedBank, encode_bank
from ovseg.vocab.cache import TextCache, tower_key
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

    def plan(self, vocabulary: Vocabulary, background: str | None, saved: SavedBank | None = None) -> Plan:
        """The plan for a user's vocabulary.

        Args:
            vocabulary: The user's.
            background: A rule (``BackgroundRule.parse``), or None for the protocol's.
            saved: Embeddings of the words, which are not encoded then.

        Raises:
            ValueError: The rule is unknown, every class is background, a word cannot be encoded, or the saved
                embeddings are not of this text tower.
        """
        if saved is not None:
            self.check(saved)
        steps = self._resolved(self.protocol.steps)
        spec = background or self.protocol.background
        if spec is None:
            return Plan(self.bank(vocabulary, saved), vocabulary, steps)
        rule = BackgroundRule.parse(spec)
        competitors = self.clip.info.background_words if saved is None else saved.competitors
        competing = rule.vocabulary(vocabulary, competitors)
        kept = [i for i, item in enumerate(competing.classes) if not item.is_background]
        if not kept:
            raise ValueError("all classes are marked as background; leave the '!' off at least one")
        bank, steps = self.bank(competing, saved), (*steps, *rule.steps(competing))
        if len(kept) == len(competing):
            return Plan(bank, vocabulary, steps)
        real = Vocabulary(tuple(competing.classes[i] for i in kept), vocabulary.name)
        return Plan(bank, real, steps, kept)

    def choose(self, templates: str | Sequence[str] | None, saved: SavedBank | None) -> None:
        """Sets the templates for what follows: those given, those of saved embeddings, or as before.

        Raises:
            ValueError: Both are given and differ.
        """
        given = templates if templates is None or isinstance(templates, str) else tuple(templates)
        if saved is not None and given not in (None, saved.templates):
            raise ValueError(
                f"the bank was made with templates {saved.templates!r}, not with {given!r}; leave templates "
                "out, or build the bank again"
            )
        self.templates = (saved.templates if saved else given) or self.templates

    def save(self, vocabulary: Vocabulary) -> SavedBank:
        """Embeddings of a vocabulary's words and of those that compete with them, for ``plan``."""
        return encode_bank(self.clip, vocabulary, self.templates, self.protocol.average)

    def check(self, saved: SavedBank) -> None:
        """Checks that saved embeddings fit the weights and the protocol.

        Raises:
            ValueError: They do not; the message names the cure.
        """
        own, name = tower_key(self.clip.model.text, self.clip.tokenizer.identity), self.clip.info.name
        if saved.key != own:
            raise ValueError(
                f"the bank holds words of another text tower ({saved.tower}) than this model's ({name}); "
                "build one for it: ovseg vocab build --model NAME, or --tower NAME"
            )
        if saved.average != self.protocol.average:
            raise ValueError(
                f"the bank has templates averaged as {saved.average!r}, but this method needs them as "
                f"{self.protocol.average!r}; build one for it: ovseg vocab build --model NAME"
            )

    @torch.inference_mode()
    def bank(self, vocabulary: Vocabulary, saved: SavedBank | None = None) -> TextBank:
        """Embeddings of a vocabulary's words; the last ones are kept, and all are cached on disk."""
        if self.protocol.synonyms == "first":
            classes = (replace(item, words=item.words[:1]) for item in vocabulary.classes)
            vocabulary = Vocabulary(tuple(classes), vocabulary.name)
        if saved is not None:
            return saved.select(vocabulary, self.clip.model.logit_scale.device)
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
