"""The text bank: the embeddings of a vocabulary's words under a set of prompt templates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers.clip import CLIP
from ovseg.towers.text import TextTransformer
from ovseg.towers.text_prefix import encode_prompts
from ovseg.towers.tokenizer import Tokenizer
from ovseg.vocab.cache import TextCache, bank_key
from ovseg.vocab.shipped import list_vocabularies
from ovseg.vocab.templates import fill
from ovseg.vocab.templates import templates as template_set
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Average", "TextBank", "encode_vocabulary", "near_duplicates"]

Average = Literal["norm_mean_norm", "mean", "keep"]

_ENOUGH = 1000
_PROMPTS_PER_STEP = (
    2560  # 32 words under 80 templates: enough to share prefixes, few enough to report progress
)


@dataclass(frozen=True, eq=False)
class TextBank:
    """Text embeddings of a vocabulary, Q words under T templates.

    Attributes:
        rows: (Q, T, C) float32; T = 1 after averaging.
        normalised: Whether every row has unit length.
        word_to_class: (Q,) int64, the class that each word asks for.
        vocabulary: Whose words these are.
    """

    rows: Tensor
    normalised: bool
    word_to_class: Tensor
    vocabulary: Vocabulary

    @property
    def matrix(self) -> Tensor:
        """(Q, C), as they are: not normalised for ``average="mean"``.

        Raises:
            ValueError: The templates were kept apart.
        """
        if self.rows.shape[1] != 1:
            raise ValueError(f"{self.rows.shape[1]} rows per word; use `rows`, or encode with an average")
        return self.rows[:, 0]

    @property
    def unit(self) -> Tensor:
        """(Q, T, C) rows of unit length."""
        return self.rows if self.normalised else F.normalize(self.rows, dim=-1)

    def to(self, device: torch.device | str) -> TextBank:
        """The same bank on another device."""
        return replace(self, rows=self.rows.to(device), word_to_class=self.word_to_class.to(device))


def encode_vocabulary(
    clip: CLIP,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    templates: str | Sequence[str],
    *,
    average: Average = "norm_mean_norm",
    cache: TextCache | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> TextBank:
    """Encodes every word of a vocabulary under every template.

    Prompts are encoded over their common token tree (``ovseg.towers.text_prefix``), in bounded memory.

    Args:
        clip: Whose text tower encodes, on its own device.
        tokenizer: Of the same weights.
        vocabulary: Q words.
        templates: T strings with a ``{}`` each, or the name of a shipped set.
        average: How the T embeddings of a word become rows. ``norm_mean_norm``: each to unit length, mean, to
            unit length (SCLIP family, SAN, FC-CLIP); ``mean``: of the embeddings as they are (Talk2DINO,
            RegionCLIP), to be normalised after what follows; ``keep``: T rows as they are (CAT-Seg, SED).
        cache: Where rows are kept between runs. Rows from a cache carry no gradient; without one, gradients
            flow to the text tower wherever they are enabled.
        progress: Called with (words done, words to encode) after each step; not called if all are cached.

    Raises:
        ValueError: A prompt is over the context length (it is named), a template has no slot, or there are no
            templates or no words.

    Warns:
        UserWarning: Words of two classes have nearly equal embeddings (not for shipped lists).
    """
    prompts = template_set(templates) if isinstance(templates, str) else tuple(templates)
    if not prompts:
        raise ValueError("no prompt templates; '{}' alone prompts the bare words")
    if not vocabulary.words:
        raise ValueError("no class of the vocabulary has a word to encode")
    if average not in get_args(Average):
        raise ValueError(f"unknown average {average!r}; one of {', '.join(get_args(Average))}")
    words = list(dict.fromkeys(vocabulary.words))
    encoder = _Encoder(clip.text, tokenizer, prompts, average, progress)
    known = encoder(words) if cache is None else _cached(encoder, words, cache)
    bank = TextBank(
        torch.stack([known[word] for word in vocabulary.words]),
        average == "norm_mean_norm",
        torch.tensor(vocabulary.word_to_class, device=clip.text.text_projection.device),
        vocabulary,
    )
    if vocabulary.name not in list_vocabularies():
        _warn_near_duplicates(bank)
    return bank


def near_duplicates(bank: TextBank, threshold: float = 0.999) -> list[tuple[str, str, float]]:
    """Pairs of words of different classes whose embeddings no image can tell apart.

    Args:
        bank: Of any T; templates that were kept apart are averaged.
        threshold: Least cosine that counts.

    Returns:
        (word, other word, cosine), the closest first, at most 1000. Words of background classes are left out:
        they compete with everything on purpose.
    """
    classes, words = bank.vocabulary.classes, bank.vocabulary.words
    at = [q for q, k in enumerate(bank.vocabulary.word_to_class) if not classes[k].is_background]
    rows, owners = F.normalize(bank.unit.detach()[at].mean(dim=1), dim=-1), bank.word_to_class[at]
    found: list[tuple[str, str, float]] = []
    for start in range(0, len(at), 1024):  # bounded memory for any Q
        cosine = rows[start : start + 1024] @ rows[start:].T
        i, j = (cosine > threshold).nonzero(as_tuple=True)
        later = (i < j) & (owners[start:][i] != owners[start:][j])
        for i_, j_ in zip(i[later][:_ENOUGH].tolist(), j[later][:_ENOUGH].tolist()):
            found.append((words[at[start + i_]], words[at[start + j_]], float(cosine[i_, j_])))
        if len(found) >= _ENOUGH:
            break
    return sorted(found, key=lambda pair: -pair[2])[:_ENOUGH]


@dataclass(frozen=True)
class _Encoder:
    """Words to rows (T, C)."""

    tower: TextTransformer
    tokenizer: Tokenizer
    templates: tuple[str, ...]
    average: Average
    progress: Callable[[int, int], Any] | None

    def __call__(self, words: Sequence[str]) -> dict[str, Tensor]:
        step = max(1, _PROMPTS_PER_STEP // len(self.templates))
        rows: dict[str, Tensor] = {}
        for start in range(0, len(words), step):
            part = words[start : start + step]
            rows.update(zip(part, self._rows(part)))
            if self.progress is not None:
                self.progress(len(rows), len(words))
        return rows

    def _rows(self, words: Sequence[str]) -> Tensor:
        """(W, T, C), T = 1 if averaged."""
        tokens = [
            self.tokenizer.encode(fill(template, word)) for word in words for template in self.templates
        ]
        rows = encode_prompts(self.tower, tokens).float().unflatten(0, (len(words), -1))  # (W, T, C)
        if self.average == "keep":
            return rows
        if self.average == "mean":
            return rows.mean(dim=1, keepdim=True)
        return F.normalize(F.normalize(rows, dim=-1).mean(dim=1, keepdim=True), dim=-1)


@torch.no_grad()
def _cached(encoder: _Encoder, words: Sequence[str], cache: TextCache) -> dict[str, Tensor]:
    key = bank_key(encoder.tower, encoder.tokenizer.identity, encoder.templates, encoder.average)
    device = encoder.tower.text_projection.device
    known = cache.get(key, words)
    new = encoder([word for word in words if word not in known])
    cache.put(key, {word: row.cpu() for word, row in new.items()})
    return {word: row.to(device) for word, row in (known | new).items()}


def _warn_near_duplicates(bank: TextBank) -> None:
    pairs = near_duplicates(bank) if bank.rows.shape[1] == 1 else []
    if pairs:
        first, second, cosine = pairs[0]
        more = f" and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        warnings.warn(
            f"the words {first!r} and {second!r}{more} belong to two classes but mean the same to the text "
            f"tower (cosine {cosine:.4f}); which class wins is chance, so merge them or choose other words",
            stacklevel=3,
        )
