"""The words of EmojiScenes: which drawings carry them, their synonyms, and the group they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["Word", "WordGroup", "WordTable", "word_table"]

WordGroup = Literal["base", "novel", "unknown"]
_FILE = Path(__file__).with_name("words.json")


@dataclass(frozen=True)
class Word:
    """A word and the drawings it names.

    Attributes:
        name: The everyday name.
        group: ``base``: heads may train on it. ``novel``: the tower knows it, heads never see it.
            ``unknown``: not even the tower has seen it.
        cldr: Unicode CLDR short names, as slugs, of the emoji that show it.
        fxemoji: The same in the names of the FxEmojis set, which does not follow CLDR.
        synonyms: Other names of the same thing, from the emoji's CLDR names and tags.
    """

    name: str
    group: WordGroup
    cldr: tuple[str, ...]
    fxemoji: tuple[str, ...]
    synonyms: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class WordTable:
    """All words, in a fixed order, and the textures that scenes are drawn on."""

    words: tuple[Word, ...]
    textures: tuple[str, ...]

    def select(self, *groups: WordGroup) -> tuple[int, ...]:
        """Indices of the words of some groups, in order."""
        return tuple(i for i, word in enumerate(self.words) if word.group in groups)

    def names(self, *groups: WordGroup) -> tuple[str, ...]:
        """Names of the words of some groups, in order."""
        return tuple(self.words[i].name for i in self.select(*groups))

    def index(self, name: str) -> int:
        """Index of a word by its name.

        Raises:
            KeyError: No word has that name.
        """
        for i, word in enumerate(self.words):
            if word.name == name:
                return i
        raise KeyError(f"EmojiScenes has no word {name!r}")


@cache
def word_table() -> WordTable:
    """The shipped table."""
    raw = json.loads(_FILE.read_text(encoding="utf-8"))
    words = tuple(
        Word(
            row["name"], row["group"], tuple(row["cldr"]), tuple(row["fxemoji"]), tuple(row["synonyms"])
        )
        for row in raw["words"]
    )  # fmt: skip
    return WordTable(words, tuple(raw["textures"]))
