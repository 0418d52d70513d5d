"""The vocabulary: which classes there are, and which words ask for each."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ovseg.vocab.bank_header import BANK_SUFFIX, read_header
from ovseg.vocab.colours import class_colours
from ovseg.vocab.parsing import Entry, check_characters, quoted, read_entries, read_file, read_strings
from ovseg.vocab.shipped import read_list

if TYPE_CHECKING:
    import numpy as np

    from ovseg.vocab.bank_file import SavedBank

__all__ = ["Vocabulary", "VocabularyClass", "VocabularySource"]


@dataclass(frozen=True)
class VocabularyClass:
    """One class.

    Attributes:
        name: What results and legends call it.
        words: Query words, verbatim as they go into the prompts; more than one are synonyms. Empty only for a
            background class that is not prompted (some protocols put a constant score there).
        is_background: Whether pixels of this class count as background.
        colour: RGB, 0-255.

    Raises:
        ValueError: The name or a word is empty or holds control characters; a class that is not background
            has no words.
    """

    name: str
    words: tuple[str, ...]
    is_background: bool = False
    colour: tuple[int, int, int] = (128, 128, 128)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a class has an empty name; give it one")
        if not self.words and not self.is_background:
            raise ValueError(f"class {self.name!r} has no words; only a background class may go without")
        if any(not word.strip() for word in self.words):
            raise ValueError(f"class {self.name!r} has an empty word; remove it")
        for text in (self.name, *self.words):
            check_characters(text)


@dataclass(frozen=True)
class Vocabulary:
    """Ordered classes with their query words. Immutable and hashable; K classes, Q words.

    Most callers want :meth:`of`.

    Attributes:
        classes: K classes; the index of a class is its label.
        name: Where it comes from ("ade150.sclip", "street.txt"), or "".

    Raises:
        ValueError: There is no class, or two have one name.
    """

    classes: tuple[VocabularyClass, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("the vocabulary is empty: name at least one class, e.g. ['road', 'car']")
        repeated = [name for name, n in Counter(self.names).items() if n > 1]
        if repeated:
            raise ValueError(
                f"class name given twice: {quoted(repeated)}; rename one, or write one class with several "
                f"words: 'name: word | other word'"
            )

    @staticmethod
    def of(source: VocabularySource) -> Vocabulary:
        """The vocabulary that a user names.

        Args:
            source: One of

                * a list of strings, one class each: ``"road"``, or ``"person: man | woman | child"`` with the
                  name before the first colon and the query words after it. A leading ``!`` marks a background
                  class: ``"!stuff: sky | wall"``.
                * the path of a ``.txt`` file with one such string a line (UTF-8 with or without a byte order
                  mark). Empty lines are skipped, and comments: from a ``#`` that begins the line or follows
                  a space.
                * the path of a ``.json`` file: a list of such strings, or what :meth:`to_dict` returns.
                * the name of a shipped list: a data set ("ade150"), or a data set and the method whose words
                  they are ("ade150.sclip"). Where two classes of such a list share a name, the later one is
                  shown as "name (2)".
                * the path of a ``.safetensors`` file: a text bank (``ovseg.vocab.bank_file``), of which the
                  classes are taken; or such a bank.
                * what :meth:`to_dict` returns, or a Vocabulary, returned as it is.

        Raises:
            ValueError: The source is no vocabulary; the message names the cure.
            FileNotFoundError: There is no such file.

        Warns:
            UserWarning: A word serves two classes (not for shipped lists).
        """
        if isinstance(own := getattr(source, "vocabulary", source), Vocabulary):
            return own
        if isinstance(source, Mapping):
            return _warned(Vocabulary.from_dict(source))
        if not isinstance(source, (str, os.PathLike)):
            return _warned(_build(read_strings(source)))  # type: ignore[arg-type]
        path = Path(source)
        if path.suffix == BANK_SUFFIX:
            return Vocabulary.from_dict(read_header(path)["vocabulary"])
        if (
            isinstance(source, os.PathLike)
            or path.suffix.lower() in {".txt", ".json"}
            or os.path.isfile(path)
        ):
            return _warned(_build(read_file(path), path.name))
        data = read_list(source)
        entries = _distinct(read_entries(data["classes"]))
        return _build(entries, f"{data['dataset']}.{data['protocol']}")

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Vocabulary:
        """Reads what :meth:`to_dict` wrote. Words are taken verbatim.

        Args:
            data: ``{"name": str, "classes": [{"name", "words", "background", "colour"}, ...]}``; ``words``
                defaults to the name, ``background`` to false, ``colour`` to one derived from the names.

        Raises:
            ValueError: A field is missing or of another kind, or the classes break the rules of this class.
        """
        return _build(read_entries(data.get("classes")), str(data.get("name", "")))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back to an equal vocabulary."""
        classes = [
            {
                "name": item.name,
                "words": list(item.words),
                "background": item.is_background,
                "colour": list(item.colour),
            }
            for item in self.classes
        ]
        return {"name": self.name, "classes": classes}

    def __len__(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """K class names."""
        return tuple(item.name for item in self.classes)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Q query words, class after class."""
        return tuple(word for item in self.classes for word in item.words)

    @cached_property
    def word_to_class(self) -> tuple[int, ...]:
        """Q class indices: the class that each word asks for."""
        return tuple(i for i, item in enumerate(self.classes) for _ in item.words)

    @property
    def palette(self) -> np.ndarray:
        """uint8 (K, 3) RGB."""
        import numpy as np

        return np.array([item.colour for item in self.classes], dtype=np.uint8)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of what decides the labels: names, words, background flags and their order."""
        rows = [[item.name, item.words, item.is_background] for item in self.classes]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


VocabularySource: TypeAlias = (
    "Vocabulary | SavedBank | str | os.PathLike[str] | Mapping[str, Any] | Iterable[str]"
)


def _build(entries: Sequence[Entry], name: str = "") -> Vocabulary:
    colours = class_colours([e.name for e in entries], [e.is_background for e in entries])
    return Vocabulary(
        tuple(
            VocabularyClass(entry.name, entry.words, entry.is_background, entry.colour or colour)
            for entry, colour in zip(entries, colours)
        ),
        name,
    )


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Some data sets have two classes of one name (ADE-847: bag, pot); results must tell them apart."""
    seen: Counter[str] = Counter()
    out = []
    for entry in entries:
        seen[entry.name] += 1
        n = seen[entry.name]
        out.append(entry if n == 1 else entry._replace(name=f"{entry.name} ({n})"))
    return out


def _warned(vocabulary: Vocabulary) -> Vocabulary:
    owners: dict[str, dict[str, None]] = {}  # the tokenizer lower-cases, so Road and road are one word
    for item in vocabulary.classes:
        for word in item.words:
            owners.setdefault(word.casefold(), {})[item.name] = None
    for word, names in owners.items():
        if len(names) > 1:
            warnings.warn(
                f"the word {word!r} serves {len(names)} classes ({quoted(names)}); the first of them will "
                f"win every tie, so give each class words of its own",
                stacklevel=3,
            )
    return vocabulary
