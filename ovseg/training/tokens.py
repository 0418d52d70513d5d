"""A tokenizer of only those tokens that training can show: the rest of CLIP's table would be dead weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ovseg.towers.tokenizer import Tokenizer

__all__ = ["CompactTokenizer"]


class CompactTokenizer:
    """CLIP's byte-pair encoding, with the tokens of some texts renumbered without gaps.

    The order of the ids stays, so the end of text is still the highest one and is found by ``argmax``.

    Args:
        texts: Texts that together hold every token that will be asked for.
        context_length: Longest sequence, with start and end.
    """

    def __init__(self, texts: Iterable[str], context_length: int) -> None:
        self._full = Tokenizer(context_length)
        self._known: dict[str, list[int]] = {}
        ids = {token for text in texts for token in self._full.encode(text)}
        self.token_ids: tuple[int, ...] = tuple(sorted(ids))
        """Id in CLIP's table of each compact id."""
        self._compact = {token: i for i, token in enumerate(self.token_ids)}

    def __len__(self) -> int:
        return len(self.token_ids)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(B, L) compact ids, L that of the longest text; what follows the end of text is 0.

        Raises:
            ValueError: A text holds a token that no text given at construction has, or is too long.
        """
        rows = [self._encode(text) for text in texts]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
        return tokens

    def _encode(self, text: str) -> list[int]:
        if text not in self._known:
            ids = self._full.encode(text)
            try:
                self._known[text] = [self._compact[token] for token in ids]
            except KeyError:
                raise ValueError(f"{text!r} has a token that the training texts lack") from None
        return self._known[text]
