"""Text banks as files: the embeddings of a vocabulary, for use without a text tower."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ovseg._files import atomic_path
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.background import background_words, with_background
from ovseg.vocab.bank_header import BANK_SUFFIX, FORMAT, damaged, read_header
from ovseg.vocab.cache import TextCache, tower_key
from ovseg.vocab.text_bank import Average, TextBank, encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["SavedBank", "as_bank", "encode_bank", "load_bank"]


@dataclass(frozen=True, eq=False)
class SavedBank:
    """Embeddings of a vocabulary's words and of those that compete with them, apart from their text tower.

    Attributes:
        bank: Of the vocabulary: Q words under T templates.
        competitors: R words of the ``words`` background rule that the vocabulary does not ask for.
        competitor_rows: (R, T, C) float32, theirs.
        tower: Name of the weights that made it, for messages.
        key: Hash of their text tower (``ovseg.vocab.cache.tower_key``); only images of these weights fit.
        templates: That it was made with.
        average: How templates became rows.
    """

    bank: TextBank
    competitors: tuple[str, ...]
    competitor_rows: Tensor
    tower: str
    key: str
    templates: str | tuple[str, ...]
    average: Average

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""
        return self.bank.vocabulary

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: i for i, word in enumerate((*self.vocabulary.words, *self.competitors))}

    def select(self, vocabulary: Vocabulary, device: torch.device | str = "cpu") -> TextBank:
        """The bank of a vocabulary that is made of these words.

        Raises:
            ValueError: A word is not among them.
        """
        if missing := [word for word in vocabulary.words if word not in self._places]:
            raise ValueError(f"the bank has no embedding of {missing[0]!r}; build it again with that word")
        rows = torch.cat([self.bank.rows, self.competitor_rows])
        owners = torch.tensor(vocabulary.word_to_class)
        chosen = rows[[self._places[word] for word in vocabulary.words]]
        return TextBank(chosen, self.bank.normalised, owners, vocabulary).to(device)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the bank: ``rows`` (Q, T, C), ``word_to_class`` (Q,), ``competitor_rows``, the rest as JSON.

        Args:
            path: Its name, which ends in ``.safetensors``.

        Raises:
            ValueError: It ends otherwise.
            WriteError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix != BANK_SUFFIX:
            raise ValueError(f"{path}: a bank is written to a {BANK_SUFFIX} file")
        about = {
            "tower": self.tower,
            "key": self.key,
            "templates": self.templates if isinstance(self.templates, str) else list(self.templates),
            "average": self.average,
            "normalised": self.bank.normalised,
            "vocabulary": self.vocabulary.to_dict(),
            "competitors": list(self.competitors),
        }
        tensors = {
            "rows": self.bank.rows.detach().cpu().contiguous(),
            "word_to_class": self.bank.word_to_class.cpu().contiguous(),
            "competitor_rows": self.competitor_rows.detach().cpu().contiguous(),
        }
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"format": FORMAT, "bank": json.dumps(about)})
        return path


@torch.inference_mode()
def encode_bank(
    clip: LoadedClip, vocabulary: Vocabulary, templates: str | Sequence[str], average: Average
) -> SavedBank:
    """Encodes a vocabulary and the words that compete with it.

    Args:
        clip: Whose text tower encodes.
        vocabulary: The user's.
        templates: Name of a template set, or prompts with a ``{}`` each.
        average: See ``encode_vocabulary``.

    Raises:
        ValueError: As ``encode_vocabulary``.
    """
    competitors = background_words(vocabulary, clip.info.background_words)
    both = encode_vocabulary(
        clip.model,
        clip.tokenizer,
        with_background(vocabulary, competitors),
        templates,
        average=average,
        cache=TextCache(),
    ).to("cpu")
    count = len(vocabulary.words)
    return SavedBank(
        TextBank(both.rows[:count], both.normalised, both.word_to_class[:count], vocabulary),
        competitors,
        both.rows[count:],
        clip.info.name,
        tower_key(clip.model.text, clip.tokenizer.identity),
        templates if isinstance(templates, str) else tuple(templates),
        average,
    )


def as_bank(source: Any) -> SavedBank | None:
    """The bank that a user hands over as classes, as such or as the path of its file; None: no bank.

    Raises:
        ValueError: The file is no bank, or is damaged.
        FileNotFoundError: It is not there.
    """
    if isinstance(source, SavedBank):
        return source
    if isinstance(source, str | os.PathLike) and Path(source).suffix == BANK_SUFFIX:
        return load_bank(source)
    return None


def load_bank(path: str | os.PathLike[str]) -> SavedBank:
    """The bank in a file.

    Raises:
        ValueError: The file is no bank, or is damaged.
        FileNotFoundError: It is not there.
    """
    about = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            rows, owners, others = map(file.get_tensor, ("rows", "word_to_class", "competitor_rows"))
        templates, vocabulary = about["templates"], Vocabulary.from_dict(about["vocabulary"])
        saved = SavedBank(
            TextBank(rows, about["normalised"], owners, vocabulary),
            tuple(about["competitors"]),
            others,
            about["tower"],
            about["key"],
            templates if isinstance(templates, str) else tuple(templates),
            about["average"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise damaged(path, str(error)) from error
    if reason := _flaw(saved):
        raise damaged(path, reason)
    return saved


def _flaw(saved: SavedBank) -> str | None:
    rows, others, vocabulary = saved.bank.rows, saved.competitor_rows, saved.vocabulary
    if tuple(saved.bank.word_to_class.tolist()) != vocabulary.word_to_class or rows.dim() != 3:
        return "rows and words do not belong together"
    if len(rows) != len(vocabulary.words) or others.shape != (len(saved.competitors), *rows.shape[1:]):
        return "rows and words do not belong together"
    if not (rows.isfinite().all() and others.isfinite().all()):
        return "it has NaN or infinite values"
    return None
