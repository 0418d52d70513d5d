"""Rules for pixels that are none of the user's classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ovseg.inference.steps import DropBackground, Floor, Margin, Step
from ovseg.vocab.background import background_words, with_background
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["BackgroundRule"]


@dataclass(frozen=True)
class BackgroundRule:
    """What a user writes after ``--background``.

    Attributes:
        kind: ``words``: common things and stuff compete, and where one of them wins the pixel is unlabelled.
            ``floor``: pixels whose best score is below ``value`` are unlabelled. ``margin``: pixels whose
            best class leads the second by less than ``value`` are. ``none``: every pixel gets a class.
        value: Threshold of ``floor`` and ``margin``, 0 to 1.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> BackgroundRule:
        """Reads "words", "none", "floor=0.3" or "margin=0.05".

        Raises:
            ValueError: It is none of these, or the number is not in 0..1.
        """
        kind, equals, number = text.partition("=")
        if kind in ("words", "none") and not equals:
            return cls(kind)
        if kind in ("floor", "margin") and equals:
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not 0 <= value <= 1:
                raise ValueError(f"background {text!r}: the number must lie in 0..1, e.g. {kind}=0.3")
            return cls(kind, value)
        raise ValueError(f"unknown background rule {text!r}; one of words, none, floor=0.3, margin=0.05")

    def vocabulary(self, vocabulary: Vocabulary, competitors: Iterable[str] | None) -> Vocabulary:
        """The classes that compete: the user's, and for ``words`` a background class.

        Args:
            vocabulary: The user's.
            competitors: Background words of the weights; None for the package's list.
        """
        if self.kind != "words":
            return vocabulary
        return with_background(vocabulary, background_words(vocabulary, competitors))

    def steps(self, vocabulary: Vocabulary) -> Sequence[Step]:
        """The rules to append to a decision over ``vocabulary``."""
        rules: list[Step] = []
        if self.kind == "floor":
            rules.append(Floor(self.value))
        elif self.kind == "margin":
            rules.append(Margin(self.value))
        if any(c.is_background for c in vocabulary.classes):
            rules.append(DropBackground())
        return rules
