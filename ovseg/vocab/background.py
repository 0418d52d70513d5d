"""Words that compete with the user's, for the ``words`` background rule.

Without competitors the arg-max over one word paints every pixel with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from ovseg.vocab.colours import class_colours
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

__all__ = ["background_words", "with_background"]

_PARTS = re.compile(r"[^\W_]+")
_ENDINGS = (("s", ""), ("es", ""), ("ies", "y"))


def background_words(vocabulary: Vocabulary, words: Iterable[str] | None = None) -> tuple[str, ...]:
    """Common things and stuff that the vocabulary does not ask for.

    A competitor that means what a class means would take its pixels away, so it is left out where a class
    name or query word equals it or one of its near-synonyms in the shipped list, or ends in it ("red car"
    leaves out "car"). Case, plurals, hyphens and spaces make no difference.

    Args:
        vocabulary: The user's.
        words: Other competitors than the shipped ones; these have no synonyms.
    """
    rows = _rows() if words is None else tuple((word,) for word in words)
    asked = {key for item in vocabulary.classes for text in (item.name, *item.words) for key in _asked(text)}
    return tuple(row[0] for row in rows if not any(_forms(word) & asked for word in row))


def with_background(vocabulary: Vocabulary, words: Iterable[str]) -> Vocabulary:
    """The vocabulary with one more class, last, that is background and holds these words.

    It is called "background", or "background (2)" where the user has a class of that name. Without words the
    vocabulary is returned as it is.
    """
    words = tuple(words)
    if not words:
        return vocabulary
    name, n = "background", 1
    while name in vocabulary.names:
        n += 1
        name = f"background ({n})"
    greys = [item.name for item in vocabulary.classes if item.is_background] + [name]
    colour = class_colours(greys, [True] * len(greys))[-1]
    extra = VocabularyClass(name, words, is_background=True, colour=colour)
    return Vocabulary((*vocabulary.classes, extra), vocabulary.name)


@cache
def _rows() -> tuple[tuple[str, ...], ...]:
    data = json.loads((files("ovseg.vocab") / "background.json").read_text(encoding="utf-8"))
    return tuple(tuple(row) for row in data["words"])


def _asked(text: str) -> set[str]:
    """What a user's word is compared by: the whole of it, and its last part (the head noun)."""
    parts = _PARTS.findall(text.casefold())
    return _forms("".join(parts)) | _forms(parts[-1]) if parts else set()


def _forms(word: str) -> set[str]:
    """The word without hyphens and spaces, and what would be its singular."""
    word = "".join(_PARTS.findall(word.casefold()))
    singulars = {word.removesuffix(end) + new for end, new in _ENDINGS if word.endswith(end)}
    return {word, *singulars}
