"""From the scores of words to a label map, without ever holding full-size scores of all words.

The class of a pixel is that of its best word (the maximum over synonyms), which a softmax does not change: so
no softmax is carried out, only its normaliser is. Blocks of pixels are reduced one after the other; where a
refinement needs the whole picture, ranges of words are, over the whole picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ovseg.dense.pamr import pamr, pamr_affinity
from ovseg.dense.score_field import ScoreField
from ovseg.inference.steps import DropBackground, Floor, Margin, Pamr, SmallAreas, Softmax, Step, check_order
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Labels", "decide"]

_CHUNK_ELEMENTS = 1 << 25  # scores of a range of words over the whole picture: 128 MB


@dataclass
class Labels:
    """Outcome of a decision.

    Attributes:
        label_map: (H, W) int32 class indices, -1 = unlabelled.
        scores: (H, W) float32 score of the best class, whether or not a rule then replaced it: its
            probability after a softmax, else the score itself.
        class_scores: (K, H, W) float32 scores of all classes, or None.
    """

    label_map: Tensor
    scores: Tensor
    class_scores: Tensor | None = None


def decide(
    field: ScoreField,
    steps: Sequence[Step],
    vocabulary: Vocabulary,
    image: Tensor | None = None,
    class_scores: bool = False,
) -> Labels:
    """Runs the steps.

    Args:
        field: Scores of the vocabulary's words.
        steps: See ``ovseg.inference.steps``.
        vocabulary: Tells which class each word belongs to and which classes are background.
        image: (3, H', W') at the output size in the values that the network sees; ``Pamr`` needs it.
        class_scores: Return the scores of all classes too: K * H' * W' numbers.

    Raises:
        ValueError: The steps are out of order, or the field's words are not the vocabulary's.
    """
    check_order(steps)
    if field.num_words != len(vocabulary.words):
        raise ValueError(
            f"scores of {field.num_words} words for a vocabulary of {len(vocabulary.words)} words"
        )
    refinements = [step for step in steps if isinstance(step, Pamr)]
    softmax = next((step for step in steps if isinstance(step, Softmax)), None)
    rules = [step for step in steps if step.stage == "rule"]
    source: _Source = _Refined(field, refinements, image) if refinements else field
    run = _Run(source, vocabulary, softmax, class_scores)
    for step in rules:
        if isinstance(step, SmallAreas):
            run.banned = _small_classes(run([]).label_map, step.share, run.background)
    return run(rules)


def _small_classes(label_map: Tensor, share: float, background: Tensor) -> Tensor:
    """(K,) whether a foreground class covers at most ``share`` of what all foreground classes cover."""
    area = torch.bincount(label_map.flatten(), minlength=len(background))
    return ~background & (area <= share * area[~background].sum())


class _Source(Protocol):
    """Full-size scores on demand."""

    @property
    def output_size(self) -> tuple[int, int]: ...

    def blocks(self) -> Iterator[tuple[slice, slice]]: ...

    def tile(self, rows: slice, cols: slice, words: slice) -> Tensor: ...


class _Refined:
    """Refined scores of a field: the whole picture is one block."""

    def __init__(self, field: ScoreField, refinements: Sequence[Pamr], image: Tensor | None) -> None:
        if image is None or tuple(image.shape[-2:]) != tuple(field.output_size):
            raise ValueError(f"pamr needs the image at the output size {tuple(field.output_size)}")
        self.field, self.refinements, self.output_size = field, refinements, field.output_size
        self.affinities = [pamr_affinity(image, step.dilations) for step in refinements]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        yield slice(0, self.output_size[0]), slice(0, self.output_size[1])

    def tile(self, rows: slice, cols: slice, words: slice) -> Tensor:
        scores = self.field.tile(rows, cols, words)
        for step, affinity in zip(self.refinements, self.affinities):
            scores = pamr(scores, affinity, step.dilations, step.iterations)
        return scores


@dataclass
class _Winner:
    """The best class of each pixel of a block among the words seen so far."""

    value: Tensor
    label: Tensor
    second: Tensor | None  # value of the best other class
    log_z: Tensor | None  # logarithm of the softmax normaliser

    def against(self, other: _Winner) -> _Winner:
        """The better of two winners over different classes; the first one where they tie."""
        better = other.value > self.value
        second = log_z = None
        if self.second is not None and other.second is not None:
            loser = torch.minimum(self.value, other.value)
            second = torch.maximum(loser, torch.maximum(self.second, other.second))
        if self.log_z is not None and other.log_z is not None:
            log_z = torch.logaddexp(self.log_z, other.log_z)
        label = torch.where(better, other.label, self.label)
        return _Winner(torch.where(better, other.value, self.value), label, second, log_z)

    def probability(self, value: Tensor) -> Tensor:
        """A value in the unit of the result."""
        return value if self.log_z is None else (value - self.log_z).exp()


class _Run:
    """One pass over a source of scores."""

    def __init__(
        self, source: _Source, vocabulary: Vocabulary, softmax: Softmax | None, class_scores: bool
    ) -> None:
        if softmax is not None and softmax.scale is None:
            raise ValueError("the softmax needs a scale; the weights' own is filled in by the predictor")
        self.source, self.softmax, self.class_scores = source, softmax, class_scores
        self.scale = softmax.scale if softmax is not None else None
        self.classes = torch.tensor(vocabulary.word_to_class)
        self.background = torch.tensor([c.is_background for c in vocabulary.classes])
        self.banned: Tensor | None = None  # (K,)
        words = vocabulary.word_to_class
        self.ends = [i for i in range(1, len(words) + 1) if i == len(words) or words[i] != words[i - 1]]

    def __call__(self, rules: Sequence[Step]) -> Labels:
        needs_second = any(isinstance(rule, Margin) for rule in rules)
        labels: Labels | None = None
        for rows, cols in self.source.blocks():
            winner, by_class = self._block(rows, cols, needs_second)
            labels = labels or self._empty(winner.value.device)
            value = winner.probability(winner.value)
            labels.scores[rows, cols] = value
            labels.label_map[rows, cols] = self._apply(rules, winner, value)
            if labels.class_scores is not None:
                labels.class_scores[:, rows, cols] = winner.probability(by_class)
        assert labels is not None
        return labels

    def _empty(self, device: torch.device) -> Labels:
        size = self.source.output_size
        by_class = torch.empty(len(self.background), *size, device=device) if self.class_scores else None
        label_map = torch.empty(size, dtype=torch.int32, device=device)
        return Labels(label_map, torch.empty(size, device=device), by_class)

    def _block(self, rows: slice, cols: slice, needs_second: bool) -> tuple[_Winner, Tensor]:
        winner, by_class = None, torch.empty(0)
        for words in self._chunks((rows.stop - rows.start) * (cols.stop - cols.start)):
            scores = self.source.tile(rows, cols, words)
            if self.scale is not None:
                scores = scores * self.scale
            classes = self.classes[words].to(scores.device)
            new = self._reduce(scores, classes, needs_second)
            winner = new if winner is None else winner.against(new)
            if self.class_scores:
                if not len(by_class):
                    by_class = scores.new_full((len(self.background), *scores.shape[1:]), -torch.inf)
                by_class[classes[0] : classes[-1] + 1] = _per_class(scores, classes)
        assert winner is not None
        return winner, by_class

    def _chunks(self, pixels: int) -> Iterator[slice]:
        """Ranges of words that end where a class ends, for a block of some pixels."""
        limit = _CHUNK_ELEMENTS // pixels
        if len(self.classes) <= limit:
            yield slice(0, len(self.classes))
            return
        first = 0
        for end, following in zip(self.ends, [*self.ends[1:], None]):
            if following is None or following - first > limit:
                yield slice(first, end)
                first = end

    def _reduce(self, scores: Tensor, classes: Tensor, needs_second: bool) -> _Winner:
        log_z = second = None
        if self.softmax is not None:
            terms = scores if self.softmax.over == "words" else _per_class(scores, classes)
            top = terms.amax(dim=0)
            log_z = (terms - top).exp_().sum(dim=0).log_().add_(top)
        if self.banned is not None:
            scores = scores.masked_fill(self.banned.to(scores.device)[classes][:, None, None], -torch.inf)
        value, word = scores.max(dim=0)
        label = classes[word]
        if needs_second:
            others = scores.masked_fill(classes[:, None, None] == label, -torch.inf)
            second = others.amax(dim=0)
        return _Winner(value, label, second, log_z)

    def _apply(self, rules: Sequence[Step], winner: _Winner, value: Tensor) -> Tensor:
        label = winner.label
        for rule in rules:
            if isinstance(rule, Floor):
                label = label.masked_fill(value < rule.threshold, rule.label)
            elif isinstance(rule, Margin) and winner.second is not None:
                lead = value - winner.probability(winner.second)
                label = label.masked_fill(lead < rule.margin, rule.label)
            elif isinstance(rule, DropBackground):
                drop = self.background.to(label.device)[label.clamp(min=0)] & (label >= 0)
                label = label.masked_fill(drop, -1)
        return label


def _per_class(scores: Tensor, classes: Tensor) -> Tensor:
    """The maximum over the words of each class: (q, ...) to (number of classes in the range, ...)."""
    index = classes - classes[0]
    count = int(index[-1]) + 1
    if count == len(classes):
        return scores
    best = scores.new_full((count, *scores.shape[1:]), -torch.inf)
    return best.scatter_reduce_(0, index[:, None, None].expand_as(scores), scores, "amax")
