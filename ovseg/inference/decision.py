"""From the scores of words to a label map, without ever holding full-size scores of all words.

The class of a pixel is that of its best word (the maximum over synonyms), which a softmax does not change: so
no softmax is carried out, only its normaliser is. Blocks of pixels are reduced one after the other; where a
refinement needs the whole picture, ranges of words are, over the whole picture. Rules act on the winners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ovseg.dense.operators import best
from ovseg.dense.pamr import Refined, Source, pamr_affinity
from ovseg.dense.score_field import BLOCK_WORDS, ScoreField
from ovseg.inference.mask_refinement import redraw
from ovseg.inference.steps import (
    DropBackground,
    Floor,
    Margin,
    MinMax,
    Pamr,
    RegionVote,
    SamRefine,
    SmallAreas,
    Softmax,
    Step,
    check_order,
)
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Labels", "decide"]

_STRIP_ROWS = 256
_PLAIN_EXP = 60.0  # exponentials of such numbers, and sums of many, are no extreme floats
_CHUNK_ELEMENTS = 1 << 25  # scores of a range of words over the whole picture: 128 MB


@dataclass
class Labels:
    """Outcome of a decision.

    Attributes:
        label_map: (H, W) int32 class indices, -1 = unlabelled.
        scores: (H, W) float32 score of the best class, whether or not a rule then replaced it: its
            probability after a softmax, else the score itself.
        class_scores: (K, H, W) float32 scores of all classes, or None. Classes that cover too little have 0
            after a softmax, else -inf.
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
        ValueError: The steps are out of order, the field's words are not the vocabulary's, or a step needs
            an image, regions or masks that are not there.
    """
    check_order(steps)
    if field.num_words != len(vocabulary.words):
        raise ValueError(
            f"scores of {field.num_words} words for a vocabulary of {len(vocabulary.words)} words"
        )
    softmax = next((step for step in steps if isinstance(step, Softmax)), None)
    rules = [step for step in steps if step.stage == "rule"]
    if field.regions is None and any(isinstance(rule, RegionVote) for rule in rules):
        raise ValueError("region_vote needs regions: a method that finds them, and the image as one window")
    if field.masks is None and any(isinstance(rule, SamRefine) for rule in rules):
        raise ValueError("sam_refine needs a method that looks at the image with SAM, such as trident")
    scale = None if softmax is None else softmax.scale
    if softmax is not None and scale is None:
        raise ValueError("the softmax needs a scale; the weights' own is filled in by the predictor")
    if scale is not None and field.activation is None and not any(isinstance(s, MinMax) for s in steps):
        field, scale = field.scaled(scale), None  # few scores of patches, not all of pixels: PAMR is linear
    run = _Run(_refined(field, steps, image), vocabulary, softmax, scale, field)
    for step in rules:
        if isinstance(step, SmallAreas):
            run.banned = _small_classes(run([]).label_map, step.share, run.background)
    return run(rules, class_scores)


def _refined(field: ScoreField, steps: Sequence[Step], image: Tensor | None) -> _Source:
    source: _Source = field
    for step in steps:
        if isinstance(step, Pamr):
            source = _pamr(source, step, image)
        elif isinstance(step, MinMax):
            source = _Stretched(source)
    return source


def _small_classes(label_map: Tensor, share: float, background: Tensor) -> Tensor:
    """(K,) whether a foreground class covers at most ``share`` of what all foreground classes cover."""
    area = torch.bincount(label_map.flatten(), minlength=len(background))
    return ~background & (area <= share * area[~background].sum())


class _Source(Source, Protocol):
    """Full-size scores on demand, block by block."""

    def blocks(self) -> Iterator[tuple[slice, slice]]: ...


def _pamr(source: _Source, step: Pamr, image: Tensor | None) -> Refined:
    if image is None or tuple(image.shape[-2:]) != tuple(source.output_size):
        raise ValueError(f"pamr needs the image at the output size {tuple(source.output_size)}")
    strided = isinstance(source, ScoreField) and source.activation is None
    affinity = pamr_affinity(image, step.dilations)
    return Refined(source, affinity, step.dilations, step.iterations, strided)


class _Stretched:
    """Scores of a source, every word's stretched to 0..1 over the picture."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.output_size, self.num_words = source.output_size, source.num_words
        bounds = [self._bounds(rows, cols) for rows, cols in source.blocks()]
        self.low = torch.stack([low for low, _ in bounds]).amin(dim=0)[:, None, None]
        high = torch.stack([high for _, high in bounds]).amax(dim=0)[:, None, None]
        self.range = torch.where(high > self.low, high - self.low, 1.0)

    def _bounds(self, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """(Q,) least and greatest score of each word in a block."""
        step = max(_CHUNK_ELEMENTS // _pixels(rows, cols), 1)
        ends = range(0, self.num_words, step)
        tiles = (self.source.tile(rows, cols, slice(i, min(i + step, self.num_words))) for i in ends)
        low, high = zip(*((tile.amin(dim=(1, 2)), tile.amax(dim=(1, 2))) for tile in tiles))
        return torch.cat(low), torch.cat(high)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        return self.source.blocks()

    def tile(self, rows: slice, cols: slice, words: slice) -> Tensor:
        return (self.source.tile(rows, cols, words) - self.low[words]) / self.range[words]


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
        self,
        source: _Source,
        vocabulary: Vocabulary,
        softmax: Softmax | None,
        scale: float | None,
        field: ScoreField,
    ) -> None:
        self.source, self.softmax, self.regions, self.masks = source, softmax, field.regions, field.masks
        self.scale = scale  # that the source's scores do not have yet
        self.log_z = torch.empty(0)  # (H, W) where a rule needs the probabilities of classes
        device = field.layers[0].scores.device
        self.classes = torch.tensor(vocabulary.word_to_class, device=device)
        self.background = torch.tensor([c.is_background for c in vocabulary.classes], device=device)
        self.banned: Tensor | None = None  # (K,)
        self._ranges: dict[int, list[slice]] = {}
        words = vocabulary.word_to_class
        self.ends = [i for i in range(1, len(words) + 1) if i == len(words) or words[i] != words[i - 1]]

    def __call__(self, rules: Sequence[Step], class_scores: bool = False) -> Labels:
        needs_second = any(isinstance(rule, Margin) for rule in rules)
        others = needs_second or class_scores or self.softmax is not None or self.banned is not None
        if isinstance(self.source, ScoreField) and not others:  # words that do not win do not matter
            values, label_map = self.source.winners(self.classes.int())
            labels, lead = Labels(label_map, values), torch.empty(0)
        else:
            labels, lead = self._reduced(rules, needs_second, class_scores)
        self._apply(rules, labels, lead)
        return labels

    def _reduced(
        self, rules: Sequence[Step], needs_second: bool, class_scores: bool
    ) -> tuple[Labels, Tensor]:
        """Block after block: the labels, and by how much the best class leads if asked for."""
        labels, lead = self._empty(class_scores), torch.empty(0)
        if needs_second:
            lead = torch.empty_like(labels.scores)
        if any(isinstance(rule, SamRefine) for rule in rules):
            self.log_z = torch.zeros_like(labels.scores)
        for rows, cols in self.source.blocks():
            winner, by_class = self._block(rows, cols, needs_second, class_scores)
            value = winner.probability(winner.value)
            labels.scores[rows, cols] = value
            labels.label_map[rows, cols] = winner.label
            if winner.second is not None:
                lead[rows, cols] = value - winner.probability(winner.second)
            if winner.log_z is not None and self.log_z.numel():
                self.log_z[rows, cols] = winner.log_z
            if labels.class_scores is not None:
                labels.class_scores[:, rows, cols] = winner.probability(by_class)
        return labels, lead

    def _empty(self, class_scores: bool) -> Labels:
        size, device = self.source.output_size, self.classes.device
        by_class = torch.empty(len(self.background), *size, device=device) if class_scores else None
        label_map = torch.empty(size, dtype=torch.int32, device=device)
        return Labels(label_map, torch.empty(size, device=device), by_class)

    def _block(
        self, rows: slice, cols: slice, needs_second: bool, class_scores: bool
    ) -> tuple[_Winner, Tensor]:
        winner, by_class = None, torch.empty(0)
        for words in self._chunks(_pixels(rows, cols)):
            scores = self._tile(rows, cols, words)
            classes = self.classes[words]
            new = self._reduce(scores, classes, needs_second)
            winner = new if winner is None else winner.against(new)
            if class_scores:
                if not len(by_class):
                    by_class = scores.new_full((len(self.background), *scores.shape[1:]), -torch.inf)
                by_class[classes[0] : classes[-1] + 1] = _per_class(scores, classes)
        assert winner is not None
        if class_scores and self.banned is not None:
            by_class[self.banned] = -torch.inf
        return winner, by_class

    def _tile(self, rows: slice, cols: slice, words: slice) -> Tensor:
        """(Q, rows, columns) scores, as the softmax takes them if there is one."""
        scores = self.source.tile(rows, cols, words)
        return scores if self.scale is None else scores * self.scale

    def _chunks(self, pixels: int) -> list[slice]:
        """Ranges of words that end where a class ends, for a block of some pixels."""
        limit = min(_CHUNK_ELEMENTS // pixels, BLOCK_WORDS)
        if limit not in self._ranges:
            ranges, first = [], 0
            for end, following in zip(self.ends, [*self.ends[1:], None]):
                if following is None or following - first > limit:
                    ranges.append(slice(first, end))
                    first = end
            self._ranges[limit] = ranges
        return self._ranges[limit]

    def _reduce(self, scores: Tensor, classes: Tensor, needs_second: bool) -> _Winner:
        log_z = second = None
        value, word = best(scores)
        if self.softmax is not None:
            terms = scores if self.softmax.over == "words" else _per_class(scores, classes)
            log_z = _log_sum_exp(terms, value)
        if self.banned is not None:
            scores = scores.masked_fill(self.banned[classes][:, None, None], -torch.inf)
            value, word = best(scores)
        label = classes[word]
        if needs_second:
            others = scores.masked_fill(classes[:, None, None] == label, -torch.inf)
            second = others.amax(dim=0)
        return _Winner(value, label, second, log_z)

    def _class_score(self, k: int) -> Tensor:
        """(H, W) score of a class, its probability after a softmax."""
        height, width = self.source.output_size
        first = self.ends[k - 1] if k else 0
        scores = self._tile(slice(0, height), slice(0, width), slice(first, self.ends[k])).amax(dim=0)
        return scores if self.softmax is None else (scores - self.log_z).exp()

    def _apply(self, rules: Sequence[Step], labels: Labels, lead: Tensor) -> None:
        """Changes the label map; ``lead`` is by how much the best class leads, if there is a ``Margin``."""
        label = labels.label_map
        for rule in rules:
            if isinstance(rule, Floor):
                label[labels.scores < rule.threshold] = rule.label
            elif isinstance(rule, Margin):
                label[lead < rule.margin] = rule.label
            elif isinstance(rule, RegionVote) and self.regions is not None:
                labels.label_map = label = _voted(label, self.regions.to(label.device), len(self.background))
            elif isinstance(rule, SamRefine) and self.masks is not None:
                count = len(self.background)
                labels.label_map = label = redraw(label, self._class_score, count, self.masks, rule)
            elif isinstance(rule, DropBackground):
                for part in label.split(_STRIP_ROWS):  # the index below takes 8 bytes a pixel
                    part[self.background[part.clamp(min=0)] & (part >= 0)] = rule.label


def _voted(label: Tensor, regions: Tensor, classes: int) -> Tensor:
    """Labels (H, W) in -1..classes-1 after a vote in each region."""
    low, high = (int(end) for end in torch.aminmax(regions))
    if high < 0:
        return label
    bins = (high + 2) * (classes + 1)
    if bins >= 2**31:
        regions = regions.long()
    # the row of pixels of no region comes first, and is dropped
    votes = torch.add(label, regions, alpha=classes + 1).add_(classes + 2)
    table = torch.bincount(votes.flatten(), minlength=bins).view(-1, classes + 1)
    winner = table[1:].argmax(dim=1).to(label.dtype) - 1
    if low < 0:
        return torch.where(regions >= 0, winner[regions.clamp(min=0)], label)
    return winner.index_select(0, regions.flatten()).view(label.shape)


def _log_sum_exp(terms: Tensor, greatest: Tensor) -> Tensor:
    """Over the first dimension, of which the greatest are known."""
    low, high = torch.aminmax(greatest)
    if low > -_PLAIN_EXP and high < _PLAIN_EXP:
        return terms.exp().sum(dim=0).log_()
    return (terms - greatest).exp_().sum(dim=0).log_().add_(greatest)


def _pixels(rows: slice, cols: slice) -> int:
    return math.prod(len(range(lines.start, lines.stop, lines.step or 1)) for lines in (rows, cols))


def _per_class(scores: Tensor, classes: Tensor) -> Tensor:
    """The maximum over the words of each class: (q, ...) to (number of classes in the range, ...)."""
    index = classes - classes[0]
    count = int(index[-1]) + 1
    if count == len(classes):
        return scores
    best = scores.new_full((count, *scores.shape[1:]), -torch.inf)
    return best.scatter_reduce_(0, index[:, None, None].expand_as(scores), scores, "amax")
