"""CLIP's tokenizer: open_clip's, but a prompt that is too long raises instead of being cut."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Tokenizer"]

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


@cache
def _open_clip_tokenizer() -> ModuleType:
    """open_clip's tokenizer module, without the rest of open_clip, which takes seconds to import."""
    loaded = sys.modules.get("open_clip.tokenizer")
    if loaded is not None:
        return loaded
    path = _open_clip_folder() / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("ovseg.towers._open_clip_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _open_clip_folder() -> Path:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("open_clip is not installed: pip install 'open_clip_torch>=3.3,<4'")
    return Path(spec.submodule_search_locations[0])


@cache
def _byte_pairs() -> Any:
    return _open_clip_tokenizer().SimpleTokenizer()


@cache
def _identity() -> str:
    digest = hashlib.sha256((_open_clip_folder() / _VOCABULARY).read_bytes()).hexdigest()
    return f"clip-bpe-lower-{digest[:16]}"


class Tokenizer:
    """Prompts to token ids of CLIP's byte-pair vocabulary (49408 ids, lower case).

    Attributes:
        context_length: The longest prompt, its start and end token included.
        vocab_size: Number of ids.
    """

    vocab_size = 49408

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length

    @property
    def identity(self) -> str:
        """Name and vocabulary hash, for cache keys; without the context length, which changes no id."""
        return _identity()

    def encode(self, prompt: str) -> list[int]:
        """The ids of one prompt, from start of text to end of text.

        Raises:
            ValueError: It is longer than ``context_length``.
        """
        pairs = _byte_pairs()
        ids = [pairs.sot_token_id, *pairs.encode(prompt), pairs.eot_token_id]
        if len(ids) > self.context_length:
            raise ValueError(
                f"the prompt {_short(prompt)!r} has {len(ids)} tokens, but the tower takes at most "
                f"{self.context_length}; shorten it"
            )
        return ids

    def __call__(self, prompts: str | Iterable[str]) -> Tensor:
        """Token ids (B, context_length) int64, zeros after the end of text, as open_clip's tokenizer gives.

        Raises:
            ValueError: A prompt is longer than ``context_length``; it is named.
        """
        import torch

        rows = [self.encode(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        tokens = torch.zeros(len(rows), self.context_length, dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
        return tokens


def _short(prompt: str, limit: int = 60) -> str:
    return prompt if len(prompt) <= limit else prompt[: limit - 3] + "..."
