"""A pool of concepts out of captions: what RegionCLIP's pretraining names regions from (section 3.2)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["parse_concepts"]

_OPENINGS = re.compile(
    r"\b(photo|picture|drawing|image|painting|sketch|rendition|close-up|view|art|group|pair|couple|lot|"
    r"bunch)s? of\b"
)
_FUNCTION = re.compile(
    r"[,.;:!?()\"]|\b(?:a|an|the|this|that|these|those|his|her|its|their|my|your|our|some|any|many|several|"
    r"one|two|three|four|and|or|but|while|as|of|on|in|at|to|by|with|without|from|for|into|onto|over|under|"
    r"near|behind|beside|between|above|below|around|along|through|across|against|next|front|top|"
    r"there|it|he|she|they|who|which|is|are|was|were|be|being|has|have|having|holding|wearing|"
    r"sitting|standing|lying|walking|riding|looking|playing|eating|itap)\b"
)


def parse_concepts(captions: Iterable[str], least: int = 1) -> tuple[str, ...]:
    """Noun phrases, by rule: what stands between articles, prepositions, conjunctions and common verbs.

    The authors parse with a scene-graph parser; English grammar is not what is tested here, and a phrase that
    is no noun costs little: no region looks like it.

    Args:
        captions: English sentences.
        least: How often a phrase must occur.

    Returns:
        Phrases in lower case, the most frequent first.
    """
    counts = Counter[str]()
    for caption in captions:
        text = _FUNCTION.sub("|", _OPENINGS.sub("|", caption.lower()))
        counts.update({phrase for part in text.split("|") if (phrase := " ".join(part.split()))})
    return tuple(phrase for phrase, count in counts.most_common() if count >= least)
